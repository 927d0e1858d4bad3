"""The replicated state, story by story."""

from dataclasses import replace

from gale.core.apply import screen
from gale.core.commands import (
    Announce,
    Command,
    Drain,
    Goodbye,
    LiftBans,
    Missed,
    NotServing,
    Observation,
    Passed,
    Report,
    SetAlive,
)
from gale.core.outcome import Applied, Outcome, Rejected
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import MAX_NODES, ClusterState, Node, NodeInfo, Phase
from tests.unit.strategies import put

A, B, C = "10.0.0.1:9090", "10.0.0.2:9090", "10.0.0.3:9090"
SHARED = SharedConfig(HealthPolicy(3, 5_000, 2, 60_000), (Service("default", 8080, 80),))
WEB = NodeInfo("web", "10.1.0.1", reports_to=3)
DB = NodeInfo("db", "10.1.0.2", reports_to=3)


def announce(address: str, shared: SharedConfig = SHARED, *, leads: bool = False, enforces: bool = False) -> Announce:
    return Announce(0, address, "10.0.0.1:5555", "0.1.0", shared, enforces, leads)


def told(state: ClusterState, *commands: Command) -> ClusterState:
    for command in commands:
        state, outcome = put(state, command)
        assert isinstance(outcome, Applied), outcome
        assert not outcome.refusals
    return state


def cluster() -> ClusterState:
    return told(ClusterState(), announce(A, leads=True), announce(B), announce(C))


def seen(load_balancer: str, *observations: Observation, time_ms: int = 0) -> Report:
    return Report(time_ms, load_balancer, observations)


def routing(*infos: NodeInfo) -> ClusterState:
    passes = [seen(lb, *(Passed(info, count) for info in infos)) for count in (1, 2, 3) for lb in (A, B, C)]
    return told(cluster(), *passes)


def node(state: ClusterState, info: NodeInfo = WEB) -> Node:
    return state.nodes[info.id]


def fall(state: ClusterState, time_ms: int = 0) -> ClusterState:
    return told(state, *(seen(lb, Missed("web"), time_ms=time_ms) for lb in (A, B)))


def rise(state: ClusterState, info: NodeInfo = WEB) -> ClusterState:
    return told(state, *(seen(lb, Passed(info, count)) for count in (1, 2, 3) for lb in (A, B)))


def owners(state: ClusterState) -> set[int]:
    return set(state.view().owners("default"))


def test_a_node_routes_once_a_majority_has_three_checks_in_a_row() -> None:
    state = told(cluster(), *(seen(A, Passed(WEB, count)) for count in (1, 2, 3)))
    assert node(state).phase is Phase.JOINING
    state = told(state, seen(B, Passed(WEB, 2)))
    assert node(state).phase is Phase.JOINING
    assert owners(state) == set()
    state = told(state, seen(B, Passed(WEB, 3)))
    assert node(state).phase is Phase.ROUTING
    assert owners(state) == {node(state).number}


def test_a_node_that_reports_to_one_load_balancer_routes_by_its_word() -> None:
    alone = replace(WEB, reports_to=1)
    state = told(cluster(), *(seen(A, Passed(alone, count)) for count in (1, 2, 3)))
    assert node(state).phase is Phase.ROUTING


def test_one_load_balancer_with_a_broken_cable_removes_nothing_and_two_do() -> None:
    state = told(routing(WEB), seen(C, Missed("web")))
    assert node(state).phase is Phase.ROUTING
    state = told(state, seen(B, Missed("web")))
    assert node(state).phase is Phase.FAILED
    assert node(state).fails == 1
    assert owners(state) == set()


def test_a_load_balancer_that_counts_anew_does_not_remove_a_node() -> None:
    state = told(routing(WEB), seen(C, Missed("web")), seen(C, Passed(WEB, 1)))
    assert node(state).phase is Phase.ROUTING


def test_a_dead_load_balancer_has_no_say() -> None:
    state = told(routing(WEB), seen(C, Missed("web")), SetAlive(0, C, False), seen(B, Missed("web")))
    assert node(state).phase is Phase.FAILED  # one of the two that live
    state = told(routing(WEB), SetAlive(0, C, False), seen(C, Missed("web")))
    assert node(state).phase is Phase.ROUTING


def test_a_node_that_falls_too_often_is_banned_and_comes_back_when_the_ban_ends() -> None:
    state = fall(rise(fall(routing(WEB))), time_ms=7_000)
    assert node(state).phase is Phase.BANNED
    assert node(state).banned_until_ms == 67_000
    _, outcome = put(state, seen(A, Passed(WEB, 1)))
    assert isinstance(outcome, Applied)
    assert outcome.refusals[0].reason == "the node is banned"
    _, early = put(state, LiftBans(66_999))
    assert isinstance(early, Rejected)
    state = told(state, LiftBans(67_000))
    assert (node(state).phase, node(state).fails, dict(node(state).checks)) == (Phase.JOINING, 0, {})
    assert node(rise(state)).phase is Phase.ROUTING


def test_goodbye_and_not_serving_take_a_node_out_at_once_and_only_the_second_counts() -> None:
    left = told(routing(WEB), seen(A, Goodbye("web")))
    assert (node(left).phase, node(left).fails) == (Phase.LEFT, 0)
    broken = told(routing(WEB), seen(A, NotServing("web")))
    assert (node(broken).phase, node(broken).fails) == (Phase.FAILED, 1)
    assert owners(left) == owners(broken) == set()


def test_goodbye_does_not_end_a_ban() -> None:
    banned = fall(rise(fall(routing(WEB))))
    state, _ = put(banned, seen(A, Goodbye("web")))
    assert node(state).phase is Phase.BANNED


def test_a_drain_outlives_a_failure() -> None:
    state = told(routing(WEB, DB), Drain(0, "web", True))
    assert node(state).phase is Phase.DRAINING
    assert owners(state) == {node(state, DB).number}
    assert node(state).number in state.view().nodes
    state = rise(fall(state))
    assert (node(state).phase, node(state).fails) == (Phase.DRAINING, 0)
    assert node(told(state, Drain(0, "web", False))).phase is Phase.ROUTING


def test_a_name_has_one_address_and_an_address_one_name() -> None:
    state = routing(WEB)
    for impostor, word in ((replace(WEB, address="10.1.0.9"), "name is taken"), (replace(WEB, id="x"), "is taken by")):
        after, outcome = put(state, seen(A, Passed(impostor, 1)))
        assert isinstance(outcome, Applied)
        assert word in outcome.refusals[0].reason
        assert after.nodes == state.nodes


def test_a_node_may_come_back_with_another_address_once_it_is_gone() -> None:
    state = told(routing(WEB), seen(A, Goodbye("web")), seen(A, Passed(replace(WEB, address="10.1.0.9"), 1)))
    assert (node(state).info.address, node(state).phase) == ("10.1.0.9", Phase.JOINING)


def test_a_banned_address_cannot_take_another_name() -> None:
    banned = fall(rise(fall(routing(WEB))))
    _, outcome = put(banned, seen(A, Passed(replace(WEB, id="innocent"), 1)))
    assert isinstance(outcome, Applied)
    assert "banned as node web" in outcome.refusals[0].reason


def test_weights_move_slots_in_proportion() -> None:
    state = routing(WEB, replace(DB, weight=3))
    slots = list(memoryview(state.tables["default"].owners).cast("H"))
    assert slots.count(node(state, DB).number) == 3 * slots.count(node(state, WEB).number)


def test_the_generation_counts_views_and_nothing_else() -> None:
    state = routing(WEB)
    quiet = told(state, seen(C, Missed("web")), SetAlive(0, C, False))
    assert quiet.generation == state.generation
    assert fall(state).generation == state.generation + 1


def test_with_enforcement_a_load_balancer_that_differs_is_ignored_and_told_why() -> None:
    other = SharedConfig(HealthPolicy(4), SHARED.services)
    state = told(ClusterState(), announce(A, leads=True, enforces=True), announce(B), announce(C, other))
    assert state.voters() == {A, B}
    _, outcome = put(state, seen(C, Passed(WEB, 1)))
    assert isinstance(outcome, Rejected)
    assert "node_health.checks_before_routing: 3 here, 4 there" in outcome.reason


def test_without_enforcement_a_difference_is_only_shown() -> None:
    other = SharedConfig(HealthPolicy(4), SHARED.services)
    state = told(ClusterState(), announce(A, leads=True), announce(B, other))
    assert state.voters() == {A, B}
    assert "checks_before_routing" in state.differs(B)


def test_who_votes_anew_judges_anew() -> None:
    other = SharedConfig(HealthPolicy(4), SHARED.services)
    state = told(ClusterState(), announce(A, leads=True), announce(B, other), announce(C, other))
    state = told(state, *(seen(A, Passed(WEB, count)) for count in (1, 2, 3)))
    assert node(state).phase is Phase.JOINING
    state = told(state, announce(A, leads=True, enforces=True))
    assert state.voters() == {A}
    assert node(state).phase is Phase.ROUTING


def test_a_node_whose_services_are_nowhere_is_told_so() -> None:
    _, outcome = put(cluster(), seen(A, Passed(replace(WEB, services=("postoffice",)), 1)))
    assert isinstance(outcome, Applied)
    assert outcome.refusals[0].reason == "none of its services postoffice is here: there are default"


def test_reports_before_an_announcement_are_rejected() -> None:
    _, outcome = put(ClusterState(), seen(A, Passed(WEB, 1)))
    assert isinstance(outcome, Rejected)


def test_screening_keeps_what_would_be_refused_out_of_the_log() -> None:
    state = routing(WEB)
    impostor = Passed(replace(WEB, address="10.1.0.9"), 1)
    report, refusals = screen(state, seen(A, impostor, Missed("web")))
    assert report.observations == (Missed("web"),)
    assert [refusal.node for refusal in refusals] == ["web"]


def test_when_all_numbers_are_taken_the_node_gone_longest_makes_room() -> None:
    def crowd(first: int, phase: Phase) -> dict[str, Node]:
        infos = (NodeInfo(f"n{i}", f"10.{i // 65536}.{i // 256 % 256}.{i % 256}") for i in range(first, MAX_NODES + 1))
        return {info.id: Node(info, number, phase, since_ms=number) for number, info in enumerate(infos, first)}

    full = replace(cluster(), nodes=crowd(1, Phase.LEFT))
    state: ClusterState
    outcome: Outcome
    state, outcome = put(full, seen(A, Passed(WEB, 1)))
    assert isinstance(outcome, Applied)
    assert len(state.nodes) == MAX_NODES
    assert "n1" not in state.nodes
    assert node(state).number == 1
    _, outcome = put(replace(full, nodes=crowd(1, Phase.BANNED)), seen(A, Passed(WEB, 1)))
    assert isinstance(outcome, Applied)
    assert "no room" in outcome.refusals[0].reason


def test_a_node_without_an_ipv6_address_has_no_share_of_a_service_that_needs_one() -> None:
    services = (
        Service("default", 8080, 80),
        Service("both", 443, 443, ("10.0.0.1", "2001:db8::1")),
        Service("bridged", 80, 80, ("2001:db8::1",), mode="l2"),
        Service("tunnelled", 81, 81, ("2001:db8::1",), mode="l3", tunnel="ipv6"),
    )
    shared = SharedConfig(HealthPolicy(3, 5_000, 2, 60_000), services)
    six = replace(DB, address6="fd00::2")
    state = told(ClusterState(), announce(A, shared, leads=True), announce(B, shared), announce(C, shared))
    state = rise(rise(state, WEB), six)
    both = {node(state).number, node(state, DB).number}
    assert {name: state.view().owners(name) for name in state.tables} == {
        "default": both,
        "both": {node(state, DB).number},
        "bridged": both,
        "tunnelled": both,
    }
    assert six.lacks(services) == ""
    assert WEB.lacks(services) == "it has no IPv6 address, which both needs: it gets no flows of that"
    assert replace(WEB, services=("default",)).lacks(services) == ""
    moved = told(state, seen(A, Passed(replace(WEB, address6="fd00::1"), 3)))
    assert moved.view().owners("both") == both
    assert moved.view().nodes[node(state).number] == ("10.1.0.1", "fd00::1")
    assert moved.generation == state.generation + 1


def test_an_ipv6_address_has_one_name_too() -> None:
    first = replace(WEB, address6="fd00::1")
    state = routing(first)
    thief = replace(DB, address6="fd00::1")
    _, outcome = put(state, seen(A, Passed(thief, 1)))
    assert isinstance(outcome, Applied)
    assert outcome.refusals[0].reason == "its address fd00::1 is taken by node web"
    banned = fall(rise(fall(state), first))
    assert node(banned).phase is Phase.BANNED
    _, outcome = put(banned, seen(A, Passed(thief, 1)))
    assert isinstance(outcome, Applied)
    assert outcome.refusals[0].reason == "its address fd00::1 is banned as node web"
    changed = told(state, seen(A, Passed(replace(WEB, address6="fd00::7"), 3)), seen(A, Passed(thief, 1)))
    assert changed.nodes["db"].info.address6 == "fd00::1"
    assert changed.addresses == {"10.1.0.1": ("web",), "fd00::7": ("web",), "10.1.0.2": ("db",), "fd00::1": ("db",)}
