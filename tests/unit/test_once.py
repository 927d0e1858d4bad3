"""Each proposal has one turn, however often and however late it arrives."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gale.core.apply import apply
from gale.core.commands import Announce, Barrier, Command, Drain, Proposal
from gale.core.once import next_epoch
from gale.core.outcome import Applied, Rejected, Repeated, Superseded
from gale.core.state import ClusterState
from tests.unit.strategies import LOAD_BALANCERS, PLAIN, commands, proposed

A, B, C = LOAD_BALANCERS


def run(log: list[Proposal], state: ClusterState) -> ClusterState:
    for proposal in log:
        state, _ = apply(state, proposal)
    return state


def started() -> ClusterState:
    log = [
        proposed(Announce(0, address, "10.0.0.1:5555", "0.1.0", PLAIN, False, address == A, LOAD_BALANCERS), 1, address)
        for address in LOAD_BALANCERS
    ]
    return run(log, ClusterState())


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Proposal], list[Proposal]]:
    """A log in which each proposer numbers its proposals, and the same one with repeats and late comers strewn in."""
    clean: list[Proposal] = []
    strewn: list[Proposal] = []
    last = dict.fromkeys(LOAD_BALANCERS, (1, 1))
    for command in draw(st.lists(commands, max_size=20)):
        proposer = draw(st.sampled_from(LOAD_BALANCERS))
        epoch, sequence = last[proposer]
        if draw(st.integers(0, 4)) == 0:
            epoch, sequence = epoch + draw(st.integers(1, 3)), 0
        last[proposer] = (epoch, sequence + draw(st.integers(1, 3)))
        clean.append(proposed(command, last[proposer][1], proposer, epoch))
        strewn.append(clean[-1])
        strewn += draw(st.lists(st.sampled_from(clean), max_size=2))
        late = draw(st.sampled_from(LOAD_BALANCERS))
        if last[late][0] > 1:
            strewn.append(proposed(draw(commands), draw(st.integers(1, 9)), late, epoch=last[late][0] - 1))
    return clean, strewn


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(logs())
def test_repeats_and_late_comers_change_nothing(pair: tuple[list[Proposal], list[Proposal]]) -> None:
    clean, strewn = pair
    assert run(strewn, started()) == run(clean, started())


def test_a_repeat_changes_nothing_not_even_the_clock() -> None:
    state, _ = apply(started(), proposed(Barrier(5), 2))
    again, outcome = apply(state, proposed(Barrier(99), 2))
    assert (again, outcome) == (state, Repeated())
    older, outcome = apply(state, proposed(Barrier(99), 1))
    assert (older, outcome) == (state, Repeated())


def test_what_is_rejected_has_had_its_turn() -> None:
    state, outcome = apply(started(), proposed(Drain(0, "nobody", True), 2))
    assert isinstance(outcome, Rejected)
    assert apply(state, proposed(Drain(0, "nobody", True), 2)) == (state, Repeated())


def test_a_new_epoch_ends_the_one_before() -> None:
    state, outcome = apply(started(), proposed(Barrier(5), 1, epoch=7))
    assert isinstance(outcome, Applied)
    assert apply(state, proposed(Barrier(9), 50, epoch=6)) == (state, Superseded(7))
    assert state.proposers == {A: (7, 1), B: (1, 1), C: (1, 1)}


def test_the_next_epoch_is_the_clock_unless_that_was_set_back() -> None:
    state, _ = apply(started(), proposed(Barrier(5), 1, epoch=700))
    assert next_epoch(state, A, wall_ms=9_000) == 9_000
    assert next_epoch(state, A, wall_ms=600) == 701
    assert next_epoch(ClusterState(), A, wall_ms=0) == 1


def test_a_forgotten_proposer_is_not_heard_again_with_what_it_had_proposed() -> None:
    state = started()
    last: Command = Drain(0, "web", True)
    state, _ = apply(state, proposed(last, 2, C, epoch=40))
    for address in (A, B):
        two = Announce(0, address, "10.0.0.1:5555", "0.1.0", PLAIN, False, False, (A, B))
        state, _ = apply(state, proposed(two, 3, address))
    assert (state.members, set(state.proposers)) == ((A, B), {A, B})
    assert apply(state, proposed(last, 2, C, epoch=40)) == (state, Superseded(40))
    assert next_epoch(state, C, wall_ms=0) == 41
    assert isinstance(apply(state, proposed(Barrier(0), 1, C, epoch=41))[1], Applied)
