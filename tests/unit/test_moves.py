"""What the kernel is told of slots that move: flags, whose they were, and since when."""

import struct
from array import array

from hypothesis import given
from hypothesis import strategies as st

from gale.dataplane import moves
from gale.dataplane.moves import MOVED, Table, settled

NOW, LEARNING = 1_000_000, 15_000
SLOTS = 8
OWNERS = st.lists(st.integers(0, 5), min_size=SLOTS, max_size=SLOTS).map(lambda numbers: array("H", numbers).tobytes())
STEPS = st.lists(st.tuples(OWNERS, st.integers(0, 2 * LEARNING)), max_size=8)


def table(*owners: int) -> Table:
    return Table.of(array("H", owners).tobytes())


def owners(*numbers: int) -> bytes:
    return array("H", numbers).tobytes()


def moved(held: Table, wanted: bytes, now: int) -> Table:
    return moves.moved(held, wanted, now, LEARNING)


def move(held: Table, slot: int) -> tuple[int, ...]:
    """Since when it is flagged, when it began to learn, whose it was."""
    return struct.unpack_from("=IIH", held.moves, 12 * slot)


def test_a_slot_that_moves_is_flagged_and_others_are_not() -> None:
    after = moved(table(1, 2, 0, 3), owners(1, 3, 3, 0), NOW)
    assert after.owners == owners(1, 3 | MOVED, 3, 0 | MOVED)
    assert (move(after, 1), move(after, 3)) == ((NOW, NOW, 2), (NOW, NOW, 3))
    assert (move(after, 0), move(after, 2)) == ((0, 0, 0), (0, 0, 0))
    assert (after.moved, after.owner(1)) == (frozenset({1, 3}), 3)


def test_while_it_learns_the_first_owner_stays() -> None:
    once = moved(table(1), owners(2), NOW)
    twice = moved(once, owners(3), NOW + LEARNING - 1)
    assert (twice.owners, move(twice, 0)) == (owners(3 | MOVED), (NOW, NOW, 1))
    later = moved(twice, owners(4), NOW + LEARNING)
    assert (later.owners, move(later, 0)) == (owners(4 | MOVED), (NOW, NOW + LEARNING, 3))


def test_what_does_not_change_keeps_what_is_known() -> None:
    once = moved(table(1, 1), owners(2, 1), NOW)
    assert moved(once, owners(2, 1), NOW + 10 * LEARNING) == once


def test_back_to_where_it_was_is_a_move_too() -> None:
    """Connections were opened in between."""
    back = moved(moved(table(1), owners(2), NOW), owners(1), NOW + 5)
    assert (back.owners, move(back, 0)) == (owners(1 | MOVED), (NOW, NOW, 1))


def test_nobody_is_no_earlier_owner() -> None:
    none = moved(table(1), owners(0), NOW)
    again = moved(none, owners(2), NOW + 2 * LEARNING)
    assert (again.owners, move(again, 0)) == (owners(2 | MOVED), (NOW, NOW, 1))


def test_the_clock_goes_round() -> None:
    begin = (1 << 32) - 5
    once = moved(table(1), owners(2), begin)
    assert move(moved(once, owners(3), 5), 0) == (begin, begin, 1)
    assert [slot for slot, _ in once.learnt(5, LEARNING)] == []
    assert list(once.learnt(begin + LEARNING & 0xFFFFFFFF, LEARNING)) == [(0, begin)]


def test_flags_are_taken_away() -> None:
    once = moved(table(1, 1), owners(2, 3), NOW)
    assert settled(once, [0]).owners == owners(2, 3 | MOVED)
    assert settled(once, once.moved) == table(2, 3)


def test_how_long_ago_a_node_has_lost_a_slot() -> None:
    held = moved(moved(table(1, 1, 2), owners(3, 1, 2), NOW), owners(3, 3, 2), NOW + 7)
    assert held.youngest(1, NOW + 10) == 3
    assert held.youngest(2, NOW + 10) is None


@given(STEPS)
def test_owners_are_those_that_were_asked_for(steps: list[tuple[bytes, int]]) -> None:
    """And whoever is named as an earlier owner was one."""
    held, now, were = table(*[1] * SLOTS), NOW, [{1} for _ in range(SLOTS)]
    for wanted, pause in steps:
        now += pause
        held = moved(held, wanted, now)
        for slot, owner in enumerate(memoryview(wanted).cast("H")):
            assert held.owner(slot) == owner
            flagged = slot in held.moved
            assert flagged == (len(were[slot] | {owner}) > 1)
            if flagged:
                since, began, earlier = move(held, slot)
                assert since <= began <= now
                assert earlier in were[slot] - {0}
            were[slot].add(owner)
