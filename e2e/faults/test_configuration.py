"""Load balancers that are configured differently, with and without enforcement, and the way from one to the next."""

import json
import sys
import time
from functools import partial
from typing import Any

import pytest

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab.cluster import Lab
from gale.lab.feed import Watch
from gale.lab.options import LabOptions

ENFORCED = LabOptions(enforce_single_configuration=True)
IGNORED_WITHIN_S = 2.0


def status(lab: Lab, name: str) -> dict[str, Any]:
    """`gale-ctl cluster status` as it is asked on a load balancer's own machine; empty while it does not answer."""
    command = [sys.executable, "-P", "-m", "gale.cli.ctl", "cluster", "status", "-o", "json"]
    result = lab.run(name, command)
    return dict(json.loads(result.stdout)) if result.stdout else {}


def entry(lab: Lab, asked: str, about: str) -> dict[str, Any]:
    """What one load balancer's status says of another."""
    private = lab.topology.instance(about).private
    entries = status(lab, asked).get("load_balancers", [])
    return next((entry for entry in entries if entry["address"].startswith(f"{private}:")), {})


def restart(lab: Lab, name: str, **changed: Any) -> None:
    lab.configure(name, **changed)
    lab.stop(name)
    lab.start(name)


def missing_ignored(lab: Lab, asked: str, about: str) -> str | None:
    """What is missing until one load balancer's status says that another is ignored, and by which key."""
    seen = entry(lab, asked, about)
    told = seen.get("role") == "ignored" and "checks_timeout" in seen.get("reason", "")
    return None if told else f"{about} is {seen} to {asked}"


def missing_warning(lab: Lab, asked: str, about: str) -> str | None:
    seen = entry(lab, asked, about)
    told = seen.get("role") != "ignored" and "checks_timeout" in seen.get("reason", "")
    return None if told else f"{about} is {seen} to {asked}"


def change(lab: Lab, name: str) -> int:
    """Restart one with the new configuration; returns what failed through the others meanwhile."""
    others = [e for lb, e in zip(lab.topology.lbs, lab.topology.endpoints, strict=True) if lb.name != name]
    with lab.traffic(others, rate=100) as traffic:
        restart(lab, name, checks_timeout="2s")
        with lab.watch(0.05, inside=name, local=True) as alone:
            until(lambda: None if alone.said else f"{name}'s own word", within_s=STARTS_WITHIN_S)
        time.sleep(0.5)
    assert traffic.final is not None
    return traffic.final.total.failed


def roll_out(lab: Lab, results: Results, names: list[str], failed: int, how: str) -> None:
    """Change the rest, one after the other, and judge the whole change."""
    failed += sum(change(lab, name) for name in names)
    with lab.watch(0.1) as watch:
        until(lambda: scenes.routing(lab, watch, ["node-0"]), within_s=STARTS_WITHIN_S)
        until(lambda: one_hash(watch), within_s=10)
        with lab.orders(["node-1"], clients=3, count=5) as orders:
            until(lambda: None if len(orders.all) == 15 else "15 orders", within_s=15)
    results.judge(
        "20 rolling change",
        f"all three, one after the other, {how}",
        "0 failed through the others; one configuration at the end",
        f"{failed} failed; one configuration, {len(orders.done())} of 15 orders done",
        not failed and len(orders.done()) == 15,
    )


@pytest.mark.lab(ENFORCED)
@pytest.mark.discards
def test_one_that_differs_is_ignored_until_the_others_have_changed_too(lab: Lab, results: Results) -> None:
    """The first step of a rolling change is a load balancer that differs; the last takes the leader."""
    with lab.watch(0.1, local=True) as watch:
        first = scenes.leader(lab, watch)
    one, other = scenes.others(lab, first)
    failed = change(lab, one)
    with lab.watch(0.05, inside=one, local=True) as alone:
        until(lambda: None if alone.said else "its own word", within_s=STARTS_WITHIN_S)
        up_s = time.monotonic() - 0.5  # which it has been at least since its first word
        until(lambda: missing_ignored(lab, other, one), within_s=10)
        took_s = time.monotonic() - up_s
        until(lambda: missing_ignored(lab, one, other), within_s=10)
        before = scenes.own(alone)["applied_index"]
        with lab.orders(["node-1"], names=[first, other], count=20) as orders:
            until(lambda: None if len(orders.all) == 20 else "20 orders", within_s=10)
        with lab.orders(["node-1"], inside=one, count=1) as refused:
            until(lambda: None if refused.all else "an answer", within_s=10)
        applied = scenes.own(alone)["applied_index"] - before
    told = all("checks_timeout" in lab.log(name) for name in (one, other, first))
    within_s = results.allowed_s(IGNORED_WITHIN_S)
    results.judge(
        "20 configuration differs, enforced",
        "one starts with another checks_timeout",
        f"ignored ≤ {within_s:g} s, both sides say why; 0 commits from it, the others go on",
        f"ignored after {took_s:.1f} s; in every log: {told}, in both statuses;"
        f" {len(orders.done())} of 20 orders through the others, {len(refused.done())} of 1 through it,"
        f" {applied} applied there",
        took_s <= within_s and told and (len(orders.done()), applied, refused.done()) == (20, 0, []),
    )
    roll_out(lab, results, [other, first], failed, "enforced")


@pytest.mark.long_form
@pytest.mark.discards
def test_one_that_differs_joins_and_all_warn_where_nothing_is_enforced(lab: Lab, results: Results) -> None:
    with lab.watch(0.1, local=True) as watch:
        first = scenes.leader(lab, watch)
    one, other = scenes.others(lab, first)
    failed = change(lab, one)
    with lab.orders(["node-1"], names=[one], count=5) as orders:
        until(lambda: None if len(orders.all) == 5 else "five orders", within_s=10)
    for asked in (one, other):
        until(partial(missing_warning, lab, asked, one), within_s=10)
    logs = [name for name in (one, other, first) if "checks_timeout" in lab.log(name)]
    results.judge(
        "20 configuration differs, told only",
        "one starts with another checks_timeout",
        "it joins, and every log and status warns",
        f"{len(orders.done())} of 5 orders through it; warned in {len(logs)} of 3 logs and in every status",
        len(orders.done()) == 5 and len(logs) == 3,
    )
    roll_out(lab, results, [other, first], failed, "told only")


def one_hash(watch: Watch) -> str | None:
    statuses = [report.status for report in watch.latest.values()]
    entries = [lb for status in statuses if status for lb in status["load_balancers"]]
    hashes, roles = {lb["config_hash"] for lb in entries}, {lb["role"] for lb in entries}
    reasons = {lb["reason"] for lb in entries}
    right = len(statuses) == 3 and len(hashes) == 1 and roles == {"leader", "follower"} and reasons == {""}
    return None if right else f"{hashes}, {roles}, {reasons}"
