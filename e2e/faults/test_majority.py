"""Who takes a node out: a majority of the load balancers that hear it, or, when there is none, each one for itself."""

import time
from collections import Counter

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.feed import Traffic, Watch
from gale.lab.options import LabOptions
from gale.lab.topology import endpoint

CHECKS_TIMEOUT_S = 1.0
OPTIONS = LabOptions()
NODES = ("node-0", "node-1", "node-2")


def fallen(lab: Lab, watch: Watch, names: list[str], since_s: float) -> set[str]:
    """Nodes that one of these load balancers has said not to route since then."""
    asked = set(scenes.servers(lab, names))
    reports = [report for report in watch.since(since_s) if report.server in asked]
    assert reports
    return {node for report in reports for node, phase in view.phases(report).items() if phase != "routing"}


def cut_private_link(lab: Lab, faults: Faults, name: str, away_s: float) -> tuple[set[str], int]:
    """What fell out of routing on the others, and the fails that were counted."""
    with lab.watch(0.05) as watch:
        until(lambda: missing_vouching(lab, watch), within_s=10)
        rest = scenes.others(lab, name)
        before, fell_before = fails(watch, lab.servers[0]), falls(lab, rest)
        faults.cut(name)
        time.sleep(away_s)
        faults.heal(name)
        time.sleep(CHECKS_TIMEOUT_S)
        until(lambda: missing_vouching(lab, watch), within_s=10)
        after = fails(watch, lab.servers[0])
        fell = {node for _, node in falls(lab, rest) - fell_before}
        return fell, sum(after.values()) - sum(before.values())


def missing_vouching(lab: Lab, watch: Watch) -> str | None:
    """What is missing until every load balancer has heard every node often enough. Sooner the next one that is cut off
    would be the second that does not hear them."""
    if missing := scenes.routing(lab, watch):
        return missing
    for report in watch.latest.values():
        for node in report.status["nodes"] if report.status else ():
            if len(node["checks"]) < len(lab.servers) or len(set(node["checks"].values())) > 1:
                return f"{node['id']} has passed {node['checks']}"
    return None


def falls(lab: Lab, names: list[str]) -> Counter[tuple[str, str]]:
    """How often these load balancers have written that a node routes no more: none is too short for that."""
    return Counter(
        (name, node)
        for name in names
        for node in NODES
        for _, change in scenes.transitions(lab, name, node)
        if change.startswith("routing -> ")
    )


def fails(watch: Watch, server: str) -> dict[str, int]:
    status = watch.said[server].status
    assert status is not None
    return {node["id"]: node["fails"] for node in status["nodes"]}


def test_a_cut_private_link_of_one_load_balancer_removes_no_node(
    lab: Lab, faults: Faults, results: Results, long: bool
) -> None:
    away_s = 20 if long else 2
    rounds = [cut_private_link(lab, faults, lb, away_s) for lb in (("lb-0", "lb-1", "lb-2") if long else ("lb-0",))]
    lost = set[str]().union(*(fell for fell, _ in rounds))
    counted = sum(more for _, more in rounds)
    results.judge(
        "majority health",
        f"private link of a load balancer cut for {away_s} s, {len(rounds)} times",
        "no node is removed by it or for it",
        f"removed: {sorted(lost) or 'none'}, {counted} fails counted",
        not lost and not counted,
    )


def test_a_node_that_two_of_three_do_not_hear_is_removed_and_by_one_is_kept(
    lab: Lab, faults: Faults, results: Results
) -> None:
    with lab.watch(0.05) as watch:
        until(lambda: scenes.routing(lab, watch), within_s=10)
        began_s = time.monotonic()
        faults.lose("node-1", "lb-0")
        time.sleep(CHECKS_TIMEOUT_S + 1)
        by_one = fallen(lab, watch, ["lb-0", "lb-1", "lb-2"], began_s)
        faults.lose("node-1", "lb-1")
        cut_s = time.monotonic()
        until(lambda: view.missing_for_removal(watch.latest, lab.servers, "node-1"), within_s=10)
        took_s = time.monotonic() - cut_s
        faults.deliver()
        until(lambda: scenes.routing(lab, watch), within_s=10)
    within_s = results.allowed_s(CHECKS_TIMEOUT_S + 0.5)
    results.judge(
        "majority health",
        "a node unheard by one, then by two of three",
        f"kept, then removed ≤ {within_s} s",
        f"after one: {sorted(by_one) or 'kept'}, after two: removed in {took_s:.2f} s",
        not by_one and took_s <= within_s,
    )


def test_the_last_of_three_forwards_and_routes_around_a_node_that_dies(
    lab: Lab, faults: Faults, results: Results
) -> None:
    through = endpoint(lab.topology.instance("lb-2"))
    with lab.watch(0.05) as watch:
        until(lambda: scenes.routing(lab, watch), within_s=10)
        with lab.traffic([through], rate=300) as traffic:
            until(
                lambda: None if traffic.totals and traffic.totals[through].ok > 100 else "requests",
                within_s=STARTS_WITHIN_S,
            )
            began_s = time.monotonic()
            for name in ("lb-0", "lb-1"):
                lab.kill(name)
            time.sleep(1.5)
            until(lambda: missing_answers(traffic, began_s), within_s=10)
            killed_s = time.monotonic()
            alone = traffic.between(began_s, killed_s)
            lab.kill("node-1")
            time.sleep(CHECKS_TIMEOUT_S + 2)
            until(lambda: missing_answers(traffic, killed_s + CHECKS_TIMEOUT_S + 0.5), within_s=10)
            around_s = last_failure(traffic, killed_s) - killed_s
        for name in ("lb-0", "lb-1"):
            lab.start(name)
        until(lambda: view.missing_for_removal(watch.latest, lab.servers, "node-1"), within_s=STARTS_WITHIN_S)
        lab.start("node-1")
        until(lambda: scenes.routing(lab, watch), within_s=STARTS_WITHIN_S)
    within_s = results.allowed_s(CHECKS_TIMEOUT_S + 0.5)
    results.judge(
        "degraded mode",
        "two of three killed, then a node",
        f"0 failed without the two, around the node ≤ {within_s} s",
        f"{alone.failed} of {alone.ok} failed; the last request to the dead node began after {around_s:.2f} s",
        not alone.failed and around_s <= within_s,
    )


def missing_answers(traffic: Traffic, begin_s: float) -> str | None:
    return None if traffic.between(begin_s).ok > 100 else "a hundred requests that are answered"


def last_failure(traffic: Traffic, begin_s: float) -> float:
    """When the last request that failed began; `begin_s` when none did."""
    failures = [f for sample in traffic.samples.copy() for tally in sample.endpoints.values() for f in tally.listed]
    return max([begin_s, *(failure.started_s for failure in failures)])
