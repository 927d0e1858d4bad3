"""How the list of load balancers changes: one member at a time, and never two majorities."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gale.core.commands import Announce, Missed, Passed, Report
from gale.core.membership import agreed, check_members
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import ClusterState, NodeInfo, Phase
from tests.unit.strategies import put

NAMES = "abcdefgh"
lists = st.sets(st.sampled_from(NAMES), min_size=1, max_size=7).map(lambda some: tuple(sorted(some)))
SHARED = SharedConfig(HealthPolicy(1), (Service("default", 8080, 80),))


def announced(state: ClusterState, members: str, *announcers: str) -> ClusterState:
    for name in announcers or members:
        state, _ = put(state, Announce(0, name, f"{name}:5555", "0.1.0", SHARED, False, name == "a", tuple(members)))
    return state


def neighbours(members: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every list that may be used while this one is in force."""
    changed = [tuple(sorted(set(members) ^ {name})) for name in NAMES]
    return [members, *(other for other in changed if other)]


def meet(one: tuple[str, ...], other: tuple[str, ...], in_force: tuple[str, ...] = ()) -> bool:
    """No set of load balancers decides with one list while the rest decide with the other."""
    everybody = set(one) | set(other) | set(in_force)
    return not any(
        agreed(set(yes), in_force, one) and agreed(everybody - set(yes), in_force, other)
        for size in range(len(everybody) + 1)
        for yes in combinations(sorted(everybody), size)
    )


@given(lists)
def test_one_change_is_allowed_and_two_are_not(members: tuple[str, ...]) -> None:
    assert all(not check_members(members, other) for other in neighbours(members))
    for one, other in combinations(NAMES, 2):
        assert check_members(members, tuple(sorted(set(members) ^ {one, other})))


@given(lists, st.data())
def test_any_two_lists_in_use_at_the_same_time_have_one_majority(members: tuple[str, ...], data: st.DataObject) -> None:
    one, other = (data.draw(st.sampled_from(neighbours(members))) for _ in range(2))
    assert meet(members, one)  # who has the old list, and who has the new one, also when each counts its own only
    assert meet(one, other, in_force=members)  # two changes that were begun at once


def test_from_an_even_list_two_changes_at_once_need_the_majority_of_the_list_in_force() -> None:
    one, other = ("b", "c", "d"), ("a", "c", "d")
    assert not meet(one, other)
    assert meet(one, other, in_force=("a", "b", "c", "d"))


@given(st.lists(lists, max_size=4))
def test_over_any_sequence_of_changes_lists_in_force_follow_each_other_by_one(changes: list[tuple[str, ...]]) -> None:
    state = announced(ClusterState(), "abc")
    for members in changes:
        before = state.members
        state = announced(state, "".join(members))
        assert len(set(before) ^ set(state.members)) <= 1
        assert meet(before, state.members)
        assert (state.members == members) == (not check_members(before, members))
        assert set(state.proposers) <= {*state.members, "10.0.0.2:9090"}


def test_a_list_is_in_force_once_all_on_it_have_announced_it() -> None:
    state = announced(ClusterState(), "abc", "a", "b")
    assert state.members == ()
    state = announced(state, "abc", "c")
    assert state.members == ("a", "b", "c")
    grown = announced(state, "abcd", "d", "a", "b")
    assert grown.members == ("a", "b", "c")
    assert announced(grown, "abcd", "c").members == ("a", "b", "c", "d")
    assert announced(grown, "abc", "a", "b").members == ("a", "b", "c")  # the change is called off


def test_a_load_balancer_that_is_no_member_any_more_is_forgotten_with_what_it_saw() -> None:
    state = announced(ClusterState(), "abc")
    seen = tuple(
        Passed(NodeInfo(name, f"10.1.0.{number}", 1, (), reports), 1)
        for name, number, reports in (("web", 1, 3), ("alone", 2, 1))
    )
    state, _ = put(state, Report(0, "c", seen))
    for reporter in "ab":
        state, _ = put(state, Report(0, reporter, seen[:1]))
    state = announced(state, "ab")
    assert set(state.load_balancers) == {"a", "b"}
    assert state.nodes["web"].checks == {"a": 1, "b": 1}
    assert state.nodes["web"].phase is Phase.ROUTING
    assert (state.nodes["alone"].phase, state.nodes["alone"].fails) == (Phase.FAILED, 0)  # nobody hears it
    state, _ = put(state, Report(0, "a", (Missed("web"),)))
    assert state.nodes["web"].phase is Phase.FAILED


@pytest.mark.parametrize(
    ("in_force", "configured", "words"),
    [
        ("abc", "abx", "it adds x and lacks c; change one at a time, on every load balancer"),
        ("abc", "abcde", "it adds d, e; change"),
        ("abc", "a", "it lists a; in force are a, b, c: it lacks b, c; change"),
    ],
)
def test_a_list_that_may_not_be_used_is_explained(in_force: str, configured: str, words: str) -> None:
    assert words in check_members(in_force, configured)
