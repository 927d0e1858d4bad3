"""Forwarding without a quorum: what is taken away, what is not, and when it is given back."""

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gale.core.commands import Announce, Drain, Missed, Passed, Report
from gale.core.degraded import Degraded
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import ClusterState, NodeInfo
from gale.core.view import NO_NODE, View
from gale.core.watch import Watch
from tests.unit.strategies import put

ME, OTHER, THIRD = "10.0.0.1:9090", "10.0.0.2:9090", "10.0.0.3:9090"
TIMEOUT_MS, EVERY_MS = 3_000, 1_000
SHARED = SharedConfig(HealthPolicy(3, TIMEOUT_MS), (Service("default", 8080, 80),))
NODES = tuple(NodeInfo(name, f"10.1.0.{number}", reports_to=3) for number, name in enumerate("abcd", 1))


def routing() -> ClusterState:
    """Four nodes that route by the word of three load balancers."""
    state = ClusterState()
    for address in (ME, OTHER, THIRD):
        state, _ = put(state, Announce(0, address, "10.0.0.1:5555", "0.1.0", SHARED, False, address == ME))
    for address in (ME, OTHER, THIRD):
        state, _ = put(state, Report(0, address, tuple(Passed(info, 3) for info in NODES)))
    return state


class World:
    """One load balancer without a quorum. `elapse`: these nodes send their checks meanwhile, each at its own moment."""

    def __init__(self, state: ClusterState | None = None) -> None:
        self.state = state or routing()
        self.watch, self.degraded = Watch(ME), Degraded()
        self.now_ms = 1_000_000

    def elapse(self, ms: int, hears: str = "abcd", unwell: str = "") -> "World":
        for _ in range(ms // 50):
            self.now_ms += 50
            for position, info in enumerate(NODES):
                if info.id in hears and (self.now_ms + 200 * position) % EVERY_MS == 0:
                    self.watch.check(info, info.id not in unwell, self.now_ms)
            self.watch.tick(self.state, self.now_ms)
            self.degraded.look(self.state, self.watch, self.now_ms)
        return self

    def away(self) -> str:
        return "".join(sorted(self.degraded.away))

    def view(self) -> View:
        return self.degraded.view(self.state)


def test_a_node_that_falls_silent_is_taken_away_within_the_timeout_and_its_slots_go_to_the_others() -> None:
    world = World().elapse(5_000)
    assert (world.away(), world.view()) == ("", world.state.view())
    world.elapse(TIMEOUT_MS + 50, hears="bcd")
    assert world.away() == "a"
    assert "silent for 3000 ms" in world.degraded.away["a"]
    before, after = world.state.view(), world.view()
    assert set(after.nodes) == set(before.nodes) - {world.state.nodes["a"].number}
    assert after.generation == before.generation
    assert after.owners("default") == set(after.nodes)


def test_only_the_slots_move_that_must_and_the_node_that_comes_back_finds_its_own() -> None:
    world = World().elapse(5_000)
    gone = [world.state.nodes[name].number for name in "ab"]
    tables = [world.view().slots["default"]]
    for hears in ("bcd", "cd", "acd", "abcd"):
        world.elapse(7_000, hears=hears)
        tables.append(world.view().slots["default"])
    full, without_a, without_ab, with_a, again = (memoryview(table).cast("H") for table in tables)
    assert all(old == new or old == gone[0] for old, new in zip(full, without_a, strict=True))
    assert all(old == new or old == gone[1] for old, new in zip(without_a, without_ab, strict=True))
    assert all(old == new or new == gone[0] for old, new in zip(without_ab, with_a, strict=True))
    assert again == full


def test_a_word_of_the_node_counts_at_once() -> None:
    world = World().elapse(5_000)
    world.elapse(1_000, unwell="b")
    assert world.away() == "b"
    world.watch.goodbye("c")
    world.elapse(50)
    assert world.away() == "bc"
    assert (world.degraded.away["b"], world.degraded.away["c"]) == ("says that it is not serving", "said goodbye")


def test_it_is_given_back_by_three_checks_in_a_row() -> None:
    world = World().elapse(5_000).elapse(5_000, hears="bcd")
    world.elapse(2_000)
    assert world.away() == "a"
    world.elapse(1_000, unwell="a").elapse(2_000)
    assert world.away() == "a"  # counted anew
    world.elapse(1_000)
    assert world.away() == ""


def test_an_own_cable_that_breaks_takes_nobody_away_and_one_that_heals_neither() -> None:
    world = World().elapse(5_000)
    for _ in range(40):
        world.elapse(500, hears="")
        assert world.away() == ""
    world.elapse(2_800, hears="b")
    assert world.away() == ""  # the others have the whole timeout to come back
    world.elapse(1_300, hears="b")
    assert world.away() == "acd"


def test_what_was_taken_away_before_the_cable_broke_stays_away() -> None:
    world = World().elapse(5_000).elapse(5_000, hears="bcd").elapse(20_000, hears="")
    assert world.away() == "a"


def test_a_node_that_this_load_balancer_had_missed_already_is_taken_away_and_one_it_never_heard_is_not() -> None:
    missed, _ = put(routing(), Report(0, ME, (Missed("a"),)))
    assert World(missed).elapse(5_000, hears="bcd").away() == "a"
    state = routing()
    never = replace(state.nodes["a"], checks={OTHER: 3, THIRD: 3})
    assert World(replace(state, nodes={**state.nodes, "a": never})).elapse(9_000, hears="bcd").away() == ""


def test_what_forwards_no_more_by_the_log_is_no_longer_the_overlays() -> None:
    world = World().elapse(5_000).elapse(5_000, hears="bcd")
    world.state, _ = put(world.state, Report(0, OTHER, (Missed("a"),)))
    world.state, _ = put(world.state, Report(0, ME, (Missed("a"),)))
    world.elapse(50, hears="bcd")
    assert (world.away(), world.view()) == ("", world.state.view())


def test_a_draining_node_is_taken_away_too() -> None:
    state, _ = put(routing(), Drain(0, "a", True))
    world = World(state).elapse(5_000).elapse(5_000, hears="bcd")
    assert state.nodes["a"].number in state.view().nodes
    assert state.nodes["a"].number not in world.view().nodes
    assert world.view().slots == state.view().slots


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(1, 80), st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")))))
def test_an_overlay_only_takes_away_and_leaves_no_slot_without_its_node(
    story: list[tuple[int, set[str], set[str]]],
) -> None:
    world = World().elapse(5_000)
    for steps, hears, unwell in story:
        world.elapse(50 * steps, "".join(hears), "".join(unwell))
        committed, view = world.state.view(), world.view()
        assert view.nodes.items() <= committed.nodes.items()
        assert view.owners("default") == set(view.nodes)
        held = Counter(memoryview(view.slots["default"]).cast("H"))
        assert not view.nodes or (NO_NODE not in held and max(held.values()) - min(held.values()) <= 1)
        if not world.away():
            assert view == committed
