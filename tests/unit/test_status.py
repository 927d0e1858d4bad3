"""The cluster's status as one load balancer composes it: who leads, who follows, who is ignored, and why."""

import asyncio
from typing import Any

from google.protobuf.json_format import MessageToDict

from gale.cli.tables import summary
from gale.core.commands import Announce
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import ClusterState, Node, NodeInfo, Reference
from gale.ports import ConsensusStatus, LocalStatus
from gale.rpc.status import REASON_MAX, REASONS_MAX, cluster_status, local_status
from gale.rpc.v1 import api_pb2 as pb
from tests.unit.strategies import put

A, B, C = "10.0.0.1:9090", "10.0.0.2:9090", "10.0.0.3:9090"
SHARED = SharedConfig(HealthPolicy(3), (Service("default", 8080, 80),))
OURS, THEIRS = "checks_timeout: 5s here, 9s there", "checks_timeout: 9s here, 5s there"


def said(address: str, leader: str | None = A, degraded: tuple[str, ...] = (), **more: Any) -> pb.LocalStatus:
    consensus = ConsensusStatus(leader, 3, leader is not None, 41, frozenset({address}), **more)
    return local_status(LocalStatus(address, "0.1.0", SHARED.hash, 7, consensus, {}, {}, degraded))


def rows(
    asked: pb.LocalStatus, *others: pb.LocalStatus | tuple[str, str], state: ClusterState | None = None
) -> dict[str, tuple[str, str]]:
    answers: dict[str, pb.LocalStatus | str] = {}
    for other in others:
        address, answer = other if isinstance(other, tuple) else (other.address, other)
        answers[address] = answer
    status = asyncio.run(cluster_status(state or ClusterState(), asked, answers))
    assert [lb.address for lb in status.load_balancers] == sorted([asked.address, *answers])
    return {lb.address: (lb.role, lb.reason) for lb in status.load_balancers}


def test_leader_followers_a_learner_and_one_that_does_not_answer() -> None:
    assert rows(said(B), said(A), (C, "no connection")) == {
        A: ("leader", ""),
        B: ("follower", ""),
        C: ("unreachable", "no connection"),
    }
    assert rows(said(B, learner=True), said(A))[B] == ("learner", "")


def test_who_is_ignored_is_seen_on_both_sides_each_with_its_own_words() -> None:
    odd = said(C, None, ignored={A: THEIRS, B: THEIRS})
    a, b = said(A, ignored={C: OURS}), said(B, ignored={C: OURS})
    assert rows(a, b, odd) == {A: ("leader", ""), B: ("follower", ""), C: ("ignored", OURS)}
    assert rows(odd, a, b) == {
        A: ("ignored", THEIRS),
        B: ("ignored", THEIRS),
        C: ("ignored", f"{A}, {B} ignore it: {THEIRS}"),
    }
    assert rows(a, b, (C, "no connection"))[C] == ("ignored", OURS)


def test_a_difference_that_is_only_told_does_not_change_the_role() -> None:
    assert rows(said(A, differs={B: OURS}), said(B))[B] == ("follower", f"its configuration differs: {OURS}")


def test_what_the_state_ignores_is_ignored_without_a_word_from_the_handshake() -> None:
    state = ClusterState()
    for address, shared in ((A, SHARED), (B, SharedConfig(HealthPolicy(4), SHARED.services))):
        state, _ = put(state, Announce(0, address, f"{address}:1", "0.1.0", shared, True, address == A))
    role, reason = rows(said(A), said(B), state=state)[B]
    assert role == "ignored"
    assert reason.startswith(
        "its configuration differs from the reference: node_health.checks_before_routing: 3 here, 4"
    )


def test_without_a_quorum_the_summary_names_what_was_taken_away() -> None:
    def told(*degraded: str) -> str:
        status = asyncio.run(cluster_status(ClusterState(), said(A, None, degraded), {}))
        names = MessageToDict(status, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        return summary({"leader": None, **names})

    assert told("db", "web").endswith("nodes taken away here: db, web")
    assert told().endswith("nodes taken away here: none")
    assert "NO QUORUM: " in told()


def test_whoever_is_asked_gives_the_same_reason_of_a_node() -> None:
    web = NodeInfo("web", "10.1.0.1")
    state = ClusterState(nodes={"web": Node(web, 1)}, reference=Reference(SHARED, False))
    answers = {}
    for address, why in ((A, "no answer"), (B, "port 80: refused"), (C, "")):
        consensus = ConsensusStatus(A, 3, True, 41, frozenset({address}))
        said_of = {"web": why, "gone": "x"} if why else {}
        answers[address] = local_status(
            LocalStatus(address, "0.1.0", SHARED.hash, 7, consensus, {}, {}, not_serving=said_of)
        )
    told = set()
    for asked in answers:
        others = {address: answer for address, answer in answers.items() if address != asked}
        (node,) = asyncio.run(cluster_status(state, answers[asked], others)).nodes
        told.add(node.reason)
    assert told == {"does not serve: port 80: refused"}


def test_what_nodes_say_of_themselves_is_bounded() -> None:
    consensus = ConsensusStatus(A, 3, True, 41, frozenset({A}))
    why = {f"n{number}": "x" * 10_000 for number in range(2_000)}
    told = local_status(LocalStatus(A, "0.1.0", "", 7, consensus, {}, {}, not_serving=why)).not_serving
    assert (len(told), {len(words) for words in told.values()}) == (REASONS_MAX, {REASON_MAX})
