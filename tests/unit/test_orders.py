"""What operators order, story by story, and what events say of it."""

from dataclasses import replace

import pytest

from gale.core.apply import apply
from gale.core.commands import Ban, Command, Drain, Given, Goodbye, HandOver, LiftBans, Noted, Passed, SetWeight, Unban
from gale.core.orders import WHO_MAX, too_new
from gale.core.outcome import Applied, Rejected
from gale.core.state import MAX_TRANSITIONS, ClusterState, Phase
from tests.unit.strategies import proposed, put
from tests.unit.test_apply import DB, WEB, A, B, cluster, node, owners, rise, routing, seen, told

ANNA = Given("operator anna", "new disks")


def test_a_ban_takes_a_node_out_and_lasts_until_it_is_lifted() -> None:
    state = told(routing(WEB, DB), Ban(0, "web", given=ANNA))
    assert (node(state).phase, node(state).banned_until_ms, node(state).checks) == (Phase.BANNED, None, {})
    assert owners(state) == {node(state, DB).number}
    assert put(state, LiftBans(10**12))[1] == Rejected("no ban has ended yet")
    refused, outcome = put(state, seen(A, Passed(WEB, 1)))
    assert isinstance(outcome, Applied)
    assert outcome.refusals[0].reason == "the node is banned"
    state = told(refused, Unban(0, "web"))
    assert (node(state).phase, node(state).fails) == (Phase.JOINING, 0)
    assert node(rise(state)).phase is Phase.ROUTING


def test_a_ban_for_a_while_ends_by_itself() -> None:
    state = told(routing(WEB), Ban(1_000, "web", 5_000))
    assert node(state).banned_until_ms == 6_000
    assert node(told(state, LiftBans(6_000))).phase is Phase.JOINING


def test_a_ban_may_be_made_longer_or_shorter() -> None:
    state = told(routing(WEB), Ban(1_000, "web", 5_000), Ban(1_000, "web"))
    assert node(state).banned_until_ms is None
    assert state.transitions[-1].after == "banned"
    assert node(told(state, Ban(2_000, "web", 5_000))).banned_until_ms == 7_000


def test_a_weight_outlives_what_the_node_says_and_its_failures() -> None:
    state = told(routing(replace(WEB, weight=3), DB), SetWeight(0, "web", 9))
    held = state.tables["default"].owners
    shares = {info.id: memoryview(held).cast("H").tolist().count(node(state, info).number) for info in (WEB, DB)}
    assert abs(shares["web"] - 9 * shares["db"]) <= 9
    state = told(state, seen(A, Passed(replace(WEB, weight=4), 3)))
    assert (node(state).weight, node(state).info.weight) == (9, 4)
    assert node(told(state, SetWeight(0, "web", 0))).weight == 4


@pytest.mark.parametrize("order", [Drain(0, "web", True), Ban(0, "web"), Unban(0, "web"), SetWeight(0, "web", 5)])
def test_an_order_that_is_given_again_changes_nothing(order: Command) -> None:
    state = told(routing(WEB, DB), order)
    again, outcome = put(state, order)
    assert outcome == Applied()
    assert (again.nodes, again.transitions, again.generation) == (state.nodes, state.transitions, state.generation)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (Drain(0, "wbe", True), "no node is called wbe"),
        (Ban(0, "wbe"), "no node is called wbe"),
        (Ban(0, "web", 10**15), "a year at most"),
        (SetWeight(0, "web", 1_001), "1 to 1000 is allowed"),
        (HandOver(0, "10.9.9.9:9090"), "no load balancer is at 10.9.9.9:9090"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_and_changes_nothing(order: Command, words: str) -> None:
    before = routing(WEB)
    state, outcome = put(before, order)
    assert isinstance(outcome, Rejected)
    assert words in outcome.reason
    assert (state.nodes, state.transitions) == (before.nodes, before.transitions)


def test_a_node_that_is_about_to_stop_is_drained_until_it_goes_or_goes_on() -> None:
    leaving = replace(WEB, leaving=True)
    state = told(routing(WEB, DB), seen(A, Passed(leaving, 3)))
    assert (node(state).phase, node(state).drained) == (Phase.DRAINING, False)
    assert owners(state) == {node(state, DB).number}
    assert state.transitions[-1].cause == f"says at {A} that it is about to stop"
    assert node(told(state, Drain(0, "web", True), Drain(0, "web", False))).phase is Phase.DRAINING
    assert node(told(state, seen(B, Passed(WEB, 3)))).phase is Phase.ROUTING
    gone = told(state, seen(A, Goodbye("web")))
    assert node(gone).phase is Phase.LEFT
    assert node(rise(told(gone, seen(A, Passed(WEB, 1))))).phase is Phase.ROUTING
    ordered = told(state, Drain(0, "web", True), seen(A, Passed(WEB, 3)))
    assert node(ordered).phase is Phase.DRAINING


def test_events_name_the_operator_the_cause_and_the_place_in_the_log() -> None:
    state, _ = apply(routing(WEB), proposed(Drain(0, "web", True, ANNA), 1, "someone"), 41)
    event = state.transitions[-1]
    assert (event.subject, event.before, event.after) == ("node web", "routing", "draining")
    assert (event.cause, event.who, event.index) == ("an operator drains it: new disks", "operator anna", 41)
    assert state.transitions[-2].who == B  # whose report made the node rise


def test_an_order_that_changes_no_phase_is_an_event_too() -> None:
    state = told(cluster(), seen(A, Passed(WEB, 1)), Drain(0, "web", True), SetWeight(0, "web", 4))
    changes = [(event.before, event.after) for event in state.transitions[-2:]]
    assert changes == [("joining", "joining, to be drained"), ("weight 1", "weight 4")]
    state = told(state, HandOver(0, B, ANNA))
    assert (state.transitions[-1].subject, state.transitions[-1].after) == ("leader", f"to be {B}")


def test_what_changes_nothing_of_the_state_is_an_event_too() -> None:
    before = routing(WEB)
    state = told(before, Noted(0, "flows", "12 of node web", "killed", "y" * 999, ANNA))
    event = state.transitions[-1]
    assert (event.subject, event.before, event.after, event.who) == ("flows", "12 of node web", "killed", ANNA.who)
    assert len(event.cause) < 400
    assert event.cause.endswith("y: new disks")
    assert replace(state, transitions=before.transitions, proposers=before.proposers) == before


def test_a_leader_is_an_event_and_only_a_new_one() -> None:
    state = cluster()
    leads = [event.after for event in state.transitions if event.subject == "leader"]
    assert (leads, state.leader) == ([A], A)


def test_events_are_bounded_in_number_and_in_length() -> None:
    state, endless = routing(WEB), Given("x" * 9_999, "y" * 9_999)
    for weight in range(MAX_TRANSITIONS + 10):
        state = told(state, SetWeight(0, "web", 1 + weight % 7, endless))
    assert len(state.transitions) == MAX_TRANSITIONS
    assert state.transitions[-1].sequence - state.transitions[0].sequence == MAX_TRANSITIONS - 1
    assert len(state.transitions[-1].who) == WHO_MAX
    assert len(state.transitions[-1].cause) < 400


def test_orders_that_came_later_wait_for_every_load_balancer_to_know_them() -> None:
    def versions(*versions: str) -> ClusterState:
        known = cluster().load_balancers.items()
        return ClusterState(
            load_balancers={a: replace(lb, version=v) for (a, lb), v in zip(known, versions, strict=True)}
        )

    mixed = versions("0.2.0", "0.2.0", "0.1.7")
    assert "runs gale 0.1.7, which does not know this order" in too_new(mixed, Ban(0, "web"))
    assert not too_new(mixed, Drain(0, "web", True))
    assert not too_new(versions("0.2.0", "1.0", "0.10.3"), SetWeight(0, "web", 1))
    assert too_new(versions("0.2.0", "dev", "0.2.0"), HandOver(0))
    assert too_new(mixed, Noted(0, "flows", "1 of all", "killed", ""))
