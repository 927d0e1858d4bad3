"""Bans and drains when all three load balancers go at once."""

import time
from typing import Any

import pytest

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import disks
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.feed import Watch
from gale.lab.options import LabOptions

NAMES = ("lb-0", "lb-1", "lb-2")
OPTIONS = LabOptions(black_list_after_fails=1, black_list_expiry="120s")


def marks(watch: Watch, server: str) -> dict[str, Any]:
    """Phase and end of the ban of every node, as one load balancer tells them."""
    report = watch.latest.get(server)
    nodes = report.status["nodes"] if report and report.status and report.status["quorum"] else []
    return {node["id"]: (node["phase"], node["banned_until"]) for node in nodes}


def agreed(lab: Lab, watch: Watch) -> dict[str, Any]:
    """The same, once all tell the same."""
    until(
        lambda: None if same(lab, watch) else f"one answer: {[marks(watch, s) for s in lab.servers]}", STARTS_WITHIN_S
    )
    return marks(watch, lab.servers[0])


def same(lab: Lab, watch: Watch) -> bool:
    told = [marks(watch, server) for server in lab.servers]
    return bool(told[0]) and all(one == told[0] for one in told)


@pytest.mark.discards
def test_bans_and_drains_survive_the_end_of_all(lab: Lab, faults: Faults, results: Results) -> None:
    for name in NAMES:
        lab.stop(name)
        if not disks.can_mount():
            faults.give_own_disk(name)
        lab.start(name)
    with lab.watch(0.1) as watch:
        until(lambda: scenes.routing(lab, watch), within_s=STARTS_WITHIN_S)
        lab.kill("node-2")
        with lab.orders(["node-1"], kinds=["drain"], interval_s=0.1) as orders:
            until(lambda: scenes.missing_order(orders), within_s=10)
        until(
            lambda: None if marks(watch, lab.servers[0]).get("node-2", ("",))[0] == "banned" else "the ban", within_s=10
        )
        before = agreed(lab, watch)
        lab.start("node-2")
        for name in NAMES:
            lab.kill(name)
        for name in NAMES:
            lab.start(name)
        time.sleep(1)
        killed = agreed(lab, watch)
        if not disks.can_mount():
            faults.cut_power(*NAMES)
            for name in NAMES:
                lab.start(name)
            time.sleep(1)
        powerless = agreed(lab, watch)
    assert before["node-1"][0] == "draining"
    kept = [after == before for after in (killed, powerless)]
    results.judge(
        "bans and drains",
        f"kill -9 of all three, then {'a power cut' if not disks.can_mount() else 'nothing: no disks can be mounted'}",
        "the same after each",
        f"{'the same' if all(kept) else f'{before}, then {killed}, then {powerless}'}",
        all(kept),
    )
