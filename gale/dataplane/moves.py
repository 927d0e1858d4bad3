"""Slots that have moved: what the kernel holds of them beside their owners (bpf/moved.h says what for).

    held ──── moved(owners) ────> a slot whose owner changed is flagged, and learns whose its flows are
    held ──── settled(slots) ───> no flow needs these flags any more
    held ──── renewed(slots) ───> they have been there for so long that stamps could not tell before from after

Owners follow from the log and are equal on all load balancers. Flags are each one's own business: they say what it has
done lately, and whose flows it has seen.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from gale.core.view import NO_NODE

MOVED = 0x8000
"""Of bpf/abi.h: beside the owner of a slot."""

_MOVE = struct.Struct("=IIHxx")
"""struct move of bpf/abi.h."""
_OWNER = 2  # bytes
_STAMPS = 1 << 32


@dataclass(frozen=True)
class Table:
    """Of one service. `owners`: of each slot, with MOVED beside it; `moves`: a struct move for each slot."""

    owners: bytes
    moves: bytes

    @staticmethod
    def of_bytes(table: bytes) -> "Table":
        """A struct slot_table of bpf/abi.h."""
        owners = len(table) * _OWNER // (_OWNER + _MOVE.size)
        return Table(table[:owners], table[owners:])

    def as_bytes(self) -> bytes:
        return self.owners + self.moves

    @staticmethod
    def of(owners: bytes) -> "Table":
        """Nothing has moved."""
        return Table(owners, bytes(len(owners) // _OWNER * _MOVE.size))

    @cached_property
    def moved(self) -> frozenset[int]:
        """Slots that are flagged."""
        return frozenset(slot for slot, owner in enumerate(memoryview(self.owners).cast("H")) if owner & MOVED)

    def owner(self, slot: int) -> int:
        return memoryview(self.owners).cast("H")[slot] & ~MOVED

    def learnt(self, now: int, learning: int) -> Iterator[tuple[int, int]]:
        """Flagged slots that learn no more, and when they began to. `learning`: how long they do, here and below."""
        for slot in self.moved:
            _, began, _ = _move(self.moves, slot)
            if age(began, now) >= learning:
                yield slot, began

    def flagged_for(self, slot: int, now: int) -> int:
        """Jiffies since a slot was flagged."""
        since, _, _ = _move(self.moves, slot)
        return age(since, now)

    def youngest(self, node: int, now: int) -> int | None:
        """Jiffies since the node has lost a slot; None when it has lost none of those that are flagged."""
        return min((age(began, now) for began in self._lost.get(node, ())), default=None)

    @cached_property
    def _lost(self) -> Mapping[int, set[int]]:
        """Node -> when it has lost slots of those that are flagged."""
        found: dict[int, set[int]] = {}
        for slot in self.moved:
            _, began, earlier = _move(self.moves, slot)
            found.setdefault(earlier, set()).add(began)
        return found


def moved(held: Table, owners: bytes, now: int, learning: int) -> Table:
    """What follows a table when its slots get these owners. A slot that learns already goes on with that: whose flow
    has no entry is still the one that it was when it began."""
    after, moves = array("H", owners), bytearray(held.moves)
    for slot, before in enumerate(memoryview(held.owners).cast("H")):
        owner, earlier = after[slot], before & ~MOVED
        if owner == earlier:
            after[slot] = before
        elif before != NO_NODE:
            flagged = before & MOVED
            since, began, _ = _move(moves, slot) if flagged else (now, now, NO_NODE)
            if not flagged or (earlier != NO_NODE and age(began, now) >= learning):
                _MOVE.pack_into(moves, slot * _MOVE.size, since, now, earlier)
            after[slot] = owner | MOVED
    return Table(after.tobytes(), bytes(moves))


def settled(held: Table, slots: Iterable[int]) -> Table:
    """The same without the flags of these slots."""
    owners, moves = array("H", held.owners), bytearray(held.moves)
    for slot in slots:
        owners[slot] &= ~MOVED
        _MOVE.pack_into(moves, slot * _MOVE.size, 0, 0, 0)
    return Table(owners.tobytes(), bytes(moves))


def renewed(held: Table, slots: Iterable[int], since: int) -> Table:
    """The same, as if these slots had been flagged at that time: what was entered earlier does not count any more."""
    moves = bytearray(held.moves)
    for slot in slots:
        _, began, earlier = _move(moves, slot)
        _MOVE.pack_into(moves, slot * _MOVE.size, since % _STAMPS, began, earlier)
    return Table(held.owners, bytes(moves))


def age(moment: int, now: int) -> int:
    """Jiffies between two stamps, also across a wrap."""
    return (now - moment) % _STAMPS


def _move(moves: bytes | bytearray, slot: int) -> tuple[int, int, int]:
    """Since when it is flagged, when it began to learn, whose it was until then."""
    since, began, earlier = _MOVE.unpack_from(moves, slot * _MOVE.size)
    return since, began, earlier
