"""The configured list changes, one load balancer at a time, as docs/OPERATING.md says, under load."""

import time
from collections.abc import Sequence
from functools import partial

import pytest

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.feed import Watch
from gale.lab.options import LabOptions
from gale.lab.topology import api_server, endpoint

OPTIONS = LabOptions(load_balancers=5, members=3)


def endpoints(lab: Lab, names: Sequence[str]) -> list[str]:
    return [endpoint(lab.topology.instance(name)) for name in names]


def roll(lab: Lab, running: Sequence[str], members: Sequence[str]) -> int:
    """Give those that run the new list, one after the other; returns what failed through the others meanwhile."""
    failed = 0
    for name in running:
        others = [other for other in running if other != name]
        with lab.traffic(endpoints(lab, others), rate=100) as traffic:
            lab.configure(name, members)
            lab.stop(name)
            lab.start(name)
            settle(lab, running)
        assert traffic.final is not None
        failed += traffic.final.total.failed
    return failed


def settle(lab: Lab, names: Sequence[str]) -> None:
    """Until these load balancers are level and follow one leader."""
    servers = [api_server(lab.topology.instance(name)) for name in names]
    with lab.watch(0.1, local=True) as watch:
        time.sleep(0.5)
        scenes.until_level(watch, servers, within_s=STARTS_WITHIN_S)


def tell_nodes(lab: Lab, members: Sequence[str]) -> None:
    """Nodes send their checks to the new list from now on; one restarts after the other."""
    for node in lab.topology.node_instances:
        lab.configure(node.name, members)
        lab.stop(node.name)
        lab.start(node.name)
        servers = [api_server(lab.topology.instance(name)) for name in members if lab.running(name)]
        with lab.watch(0.1) as watch:
            until(partial(routes, watch, servers, node.name), STARTS_WITHIN_S)


def routes(watch: Watch, servers: Sequence[str], node: str) -> str | None:
    return view.missing_for_routing({s: watch.latest[s] for s in servers if s in watch.latest}, servers, [node])


def decide(lab: Lab, names: Sequence[str]) -> int:
    """Orders that are done, of five through each of these."""
    with lab.orders(["node-1"], names=names, clients=5, count=len(names)) as orders:
        until(lambda: None if len(orders.all) == 5 * len(names) else "every order", STARTS_WITHIN_S)
    with lab.orders(["node-1"], names=names, kinds=["undrain"], interval_s=0.1) as undrain:
        until(lambda: scenes.missing_order(undrain), within_s=10)
    return len(orders.done())


@pytest.mark.discards
def test_a_fourth_and_a_fifth_join_under_load(lab: Lab, results: Results, long: bool) -> None:
    """In the short form the fourth only; then one of the first is killed, or two."""
    members, failed, done, asked = ["lb-0", "lb-1", "lb-2"], 0, 0, 0
    for new in ("lb-3", "lb-4") if long else ("lb-3",):
        grown = [*members, new]
        lab.configure(new, grown)
        lab.start(new)
        failed += roll(lab, members, grown)
        settle(lab, grown)
        tell_nodes(lab, grown)
        members = grown
        done, asked = done + decide(lab, members), asked + 5 * len(members)
    killed = members[: len(members) - 3]
    for name in killed:
        lab.kill(name)
    rest = [name for name in members if name not in killed]
    settle(lab, rest)
    alone = decide(lab, rest)
    results.judge(
        "membership",
        f"3 to {len(members)} load balancers, each list rolled out one by one, then {len(killed)} killed",
        "0 failed through the others; all decide, and so does the majority that is left",
        f"{failed} failed; {done} of {asked} orders done, then {alone} of 15",
        not failed and done == asked and alone == 15,
    )


@pytest.mark.long_form
@pytest.mark.discards
def test_a_dead_one_is_replaced_under_load(lab: Lab, results: Results) -> None:
    lab.kill("lb-2")
    settle(lab, ["lb-0", "lb-1"])
    two = ["lb-0", "lb-1"]
    failed = roll(lab, two, two)
    three = [*two, "lb-3"]
    lab.configure("lb-3", three)
    lab.start("lb-3")
    failed += roll(lab, two, three)
    settle(lab, three)
    tell_nodes(lab, three)
    done = decide(lab, three)
    lab.kill("lb-0")
    settle(lab, ["lb-1", "lb-3"])
    after = decide(lab, ["lb-1", "lb-3"])
    results.judge(
        "membership",
        "lb-2 is dead: taken off the list, lb-3 put on it, then lb-0 killed",
        "0 failed through the other; all decide; the new one carries the majority",
        f"{failed} failed; {done} of 15 orders done, then {after} of 10",
        not failed and done == 15 and after == 10,
    )


def test_a_list_that_differs_by_more_than_one_is_explained(lab: Lab, results: Results) -> None:
    settle(lab, ["lb-0", "lb-1", "lb-2"])
    lab.configure("lb-2", ["lb-2", "lb-3", "lb-4"])
    lab.stop("lb-2")
    before = len(lab.log("lb-2"))
    lab.start("lb-2")
    until(lambda: "lb-2 runs" if lab.running("lb-2") else None, STARTS_WITHIN_S)
    said = lab.log("lb-2")[before:].strip().splitlines()
    lab.configure("lb-2")
    results.judge(
        "membership",
        "a list that has two others than the one in force",
        "refused at the start in one line",
        said[-1][:160] if said else "nothing",
        bool(said) and said[-1].startswith("gale-lb: ") and "load_balancer_quorum" in said[-1],
    )
