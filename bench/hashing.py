"""Three ways to say which node gets a flow, as arcs of one circle: gale's slots, Maglev's table, a ring.

A flow's hash is a place on the circle, and the arc that it lies in belongs to a node. A table of M entries is M arcs of
equal length. So a node's share is the sum of its arcs, exactly, and what a change moves is where two circles differ.

- Slots: gale/core/slots.py. A table follows from the one before it.
- Maglev: each node prefers all entries in an order of its own (an offset and a step, from hashes of its name); nodes
  take turns and take their best entry that is free (Eisenbud et al., NSDI 2016, 3.4). The paper gives a heavier node
  more turns; here the heaviest has one in every round, the others one whenever their weight adds up to its.
- Ring: each node has points on the circle, and the arc up to a point is its own (Karger et al., STOC 1997); as many
  points as its weight, times a hundred.

The latter two know no past: a table follows from the names and weights alone.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from gale.core.shared import SLOTS
from gale.core.slots import SlotTable, rebalance

MAGLEV_ENTRIES = 65_537
RING_POINTS = 100
CIRCLE = 1 << 64

Circle = list[tuple[int, int]]
"""Ends of arcs in ascending order, the last is the whole circle's length; and the owner of each."""
Weights = Mapping[int, int]


class Scheme(Protocol):
    """`change` says what the circle is with these nodes, now. `remembers`: that depends on what it was before."""

    name: str
    remembers: bool

    def change(self, weights: Weights) -> Circle: ...


class Slots:
    name, remembers = "gale", True

    def __init__(self, seed: int) -> None:
        self._table = SlotTable.empty(SLOTS)

    def change(self, weights: Weights) -> Circle:
        self._table = rebalance(self._table, weights)
        return table(list(memoryview(self._table.owners).cast("H")))


class Maglev:
    name, remembers = "Maglev", False

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def change(self, weights: Weights) -> Circle:
        size, most = MAGLEV_ENTRIES, max(weights.values())
        owners = [0] * size
        turns = {node: (self._hash(node, 1) % size, 1 + self._hash(node, 2) % (size - 1)) for node in sorted(weights)}
        place = {node: offset for node, (offset, _) in turns.items()}
        credit = dict.fromkeys(turns, 0)
        left = size
        while True:
            for node, (_, step) in turns.items():
                credit[node] += weights[node]
                if credit[node] < most:
                    continue
                credit[node] -= most
                at = place[node]
                while owners[at]:
                    at = (at + step) % size
                owners[at], place[node] = node, at
                left -= 1
                if not left:
                    return table(owners)

    def _hash(self, node: int, which: int) -> int:
        return hashed(f"{self._seed} {node} {which}")


class Ring:
    name, remembers = "ring", False

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def change(self, weights: Weights) -> Circle:
        points: Circle = sorted(
            (hashed(f"{self._seed} {node} {point}"), node)
            for node, weight in weights.items()
            for point in range(weight * RING_POINTS)
        )
        return [*points, (CIRCLE, points[0][1])]


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def table(owners: list[int]) -> Circle:
    return [(place + 1, owner) for place, owner in enumerate(owners)]


def shares(circle: Circle) -> dict[int, float]:
    """Of every node that has any."""
    held: dict[int, int] = {}
    begin = 0
    for end, owner in circle:
        held[owner] = held.get(owner, 0) + end - begin
        begin = end
    return {owner: length / begin for owner, length in held.items()}


def moved(before: Circle, after: Circle) -> float:
    """The share of flows that have another node than before."""
    return sum(length for length, was, now in _pieces(before, after) if was != now) / before[-1][0]


def _pieces(before: Circle, after: Circle) -> Iterator[tuple[int, int, int]]:
    """Both circles cut at the ends of both: length, owner before, owner after."""
    first, second, begin = 0, 0, 0
    while first < len(before):
        end = min(before[first][0], after[second][0])
        yield end - begin, before[first][1], after[second][1]
        begin = end
        first += before[first][0] == end
        second += after[second][0] == end
