"""Nodes are restarted one after the other, agents and services, under load in every mode: no request fails."""

from e2e.faults import scenes
from e2e.plane.clients import CELLS, at, nodes
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab.cluster import Lab
from gale.lab.feed import Traffic, Watch
from gale.lab.options import LabOptions
from gale.leaving import NO_NEW_FLOWS

OPTIONS = LabOptions(nodes=2, modes=("l4", "l2", "l3"), ipv6=True, virtual=True, drain_timeout="15s")
"""A lab of its own: flows that other tests have broken count as open for a minute, and a node would wait for them.
Nor are there datagrams, whose flows end by silence only."""


def standing(watch: Watch, lab: Lab, name: str) -> tuple[str, int]:
    status = watch.said[lab.topology.api_servers[0]].status
    assert status is not None
    (node,) = [node for node in status["nodes"] if node["id"] == name]
    return node["phase"], node["fails"]


def restart(watch: Watch, lab: Lab, name: str) -> None:
    _, fails = standing(watch, lab, name)
    lab.stop(name)
    until(lambda: None if standing(watch, lab, name) == ("left", fails) else f"{name} left in peace", within_s=5)
    lab.start(name)
    until(lambda: scenes.routing(lab, watch), within_s=STARTS_WITHIN_S)


def asked(traffic: Traffic) -> set[str]:
    return {node for tally in traffic.totals.values() for node in tally.nodes}


def test_all_nodes_are_restarted_one_after_the_other_and_no_request_fails(lab: Lab) -> None:
    """Under new connections, and under such as are kept until the server says that it ends them."""
    with (
        lab.watch(interval_s=0.05) as watch,
        lab.traffic([at(lab, *cell) for cell in CELLS], rate=40) as single,
        lab.traffic([at(lab, *cell, "lb-1") for cell in CELLS], rate=60, concurrency=12, keep=True) as kept,
    ):
        until(lambda: None if asked(kept) == nodes(lab) else "kept connections to every node", within_s=10)
        until(lambda: scenes.routing(lab, watch), within_s=10)
        for name in sorted(nodes(lab)):
            restart(watch, lab, name)
    for traffic in (single, kept):
        assert traffic.final is not None
        assert traffic.final.total.failed == 0, {at: t.failures for at, t in traffic.final.endpoints.items()}
        assert asked(traffic) == nodes(lab)
    assert all(NO_NEW_FLOWS in lab.log(name) for name in nodes(lab)), "no node waited for flows that were there"
