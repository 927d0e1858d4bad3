"""What the load balancers' answers amount to."""

from typing import Any

import pytest

from gale.lab.board import line
from gale.lab.scene import observe
from gale.lab.tally import Sample, Tally
from gale.lab.topology import Topology
from gale.lab.view import (
    Report,
    leader,
    missing_for_leader,
    missing_for_level,
    missing_for_removal,
    missing_for_routing,
)

SERVERS = Topology().api_servers
NODES = ["node-0", "node-1"]


def report(server: str, *, leads: str | None = "10.77.2.10:9090", generation: int = 7, **phases: str) -> Report:
    """An answer as `gale-ctl cluster status -o json` prints it, as far as the lab reads it."""
    own = server.replace(":5555", ":9090")
    status: dict[str, Any] = {
        "leader": leads,
        "quorum": leads is not None,
        "load_balancers": [
            {
                "address": own,
                "role": "leader" if own == leads else "follower",
                "generation": generation,
                "applied_index": 40,
            }
        ],
        "nodes": [{"id": node, "phase": phases.get(node.replace("-", "_"), "routing")} for node in NODES],
    }
    return Report(1.0, server, status, None)


def reports(*given: Report) -> dict[str, Report]:
    """All three load balancers' answers, `given` in place of those that are well."""
    return {server: report(server) for server in SERVERS} | {one.server: one for one in given}


def silent(server: str) -> Report:
    return Report(1.0, server, None, "no connection")


def test_nothing_is_missing_when_all_agree() -> None:
    assert missing_for_routing(reports(), SERVERS, NODES) is None


@pytest.mark.parametrize(
    ("odd", "missing"),
    [
        (silent(SERVERS[1]), "10.77.2.11 has not answered (no connection)"),
        (report(SERVERS[2], node_1="joining"), "node-1 is joining on 10.77.2.12"),
        (report(SERVERS[0], leads=None), "10.77.2.10 sees no quorum"),
        (report(SERVERS[0], generation=6), "generation differs: 10.77.2.10 has 6"),
    ],
)
def test_what_is_missing_is_said(odd: Report, missing: str) -> None:
    assert missing in (missing_for_routing(reports(odd), SERVERS, NODES) or "")


def test_a_load_balancer_that_was_never_heard_is_missing() -> None:
    assert missing_for_routing({}, SERVERS, NODES) == "10.77.2.10 has not answered"
    assert missing_for_level({}, SERVERS) == "10.77.2.10 has not answered"


def test_a_node_is_removed_when_no_load_balancer_routes_to_it() -> None:
    gone = [report(server, node_0="failed") for server in SERVERS]
    assert missing_for_removal(reports(*gone), SERVERS, "node-0") is None
    assert missing_for_removal(reports(*gone[1:]), SERVERS, "node-0") == "node-0 still routes on 10.77.2.10"
    assert missing_for_removal(reports(silent(SERVERS[0])), SERVERS, "node-0") == "10.77.2.10 has not answered"


def test_the_leader_is_the_one_all_name() -> None:
    assert leader(reports().values()) == "10.77.2.10"
    assert leader(reports(silent(SERVERS[0])).values()) == "10.77.2.10"
    assert leader(reports(report(SERVERS[0], leads="10.77.2.12:9090")).values()) is None
    assert leader([report(SERVERS[0], leads=None)]) is None


def test_a_new_leader_is_another_one_named_by_all_the_others() -> None:
    others = SERVERS[1:]
    elected = [report(server, leads="10.77.2.11:9090") for server in others]
    assert missing_for_leader(reports(), others, "10.77.2.10") == "10.77.2.10 still leads"
    assert missing_for_leader(reports(elected[0]), others, "10.77.2.10") == "they do not agree on a leader"
    assert missing_for_leader(reports(*elected, silent(SERVERS[0])), others, "10.77.2.10") is None
    assert (
        missing_for_leader(reports(silent(SERVERS[1])), others, "10.77.2.10") == "not every load balancer has answered"
    )


def test_the_scene_has_rates_of_the_last_second_and_totals_of_the_run() -> None:
    topology = Topology("gale", 3, 2)
    ends = topology.endpoints
    old = Sample(5.0, 0.5, {end: Tally() for end in ends})
    old.endpoints[ends[0]].answered("node-0", 0.001)
    new = Sample(10.0, 0.5, {end: Tally() for end in ends})
    for _ in range(10):
        new.endpoints[ends[1]].answered("node-1", 0.001)
    totals = {end: Tally() for end in ends}
    for sample in (old, new):
        for end, counted in sample.endpoints.items():
            totals[end].add(counted)
    scene = observe(
        10.0, topology, [old, new], totals, reports(silent(SERVERS[2]), report(SERVERS[1], node_0="failed"))
    )
    assert scene.leader == "lb-0"
    assert [lb.rate for lb in scene.lbs] == [0, 20, 0]
    assert [lb.role for lb in scene.lbs] == ["leader", "follower", None]
    assert [(node.phases, node.rate) for node in scene.nodes] == [(("failed", "routing"), 0), (("routing",), 20)]
    assert (scene.answered, scene.failed) == (11, 0)
    assert line(scene) == ("20 requests/s, 0 failed so far; lb-0 leads; node-0 failed/routing 0/s, node-1 routing 20/s")
