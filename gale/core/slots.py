"""Slot tables: which node owns which slot of a service, and what moves when the nodes change.

A packet's hash picks a slot, the slot's owner gets the flow. Every load balancer applies the same log, so the table
may depend on its own past, and that buys two things at once:

- balance: a node's slots differ from its exact weighted quota, slots * weight / sum of weights, by less than one;
- least movement: no table with that balance can be reached by moving fewer slots.

A quota that is not whole may be rounded either way. Rounding up saves one move for a node that already holds that many
slots and nothing for any other, so those nodes are rounded up first: the greedy choice is the best one.

A slot whose owner goes away remembers it. When slots must move to a node, those that remember it go first, so a node
that comes back gets its own slots back, and with them the clients that used to reach it.
"""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, compress
from operator import not_

from gale.core.view import NO_NODE


@dataclass(frozen=True, slots=True)
class SlotTable:
    """Unsigned 16-bit node numbers in host byte order, one per slot; 0 is no node.

    owners    who gets the slot's new flows
    previous  the last owner that went away, until it is back
    """

    owners: bytes
    previous: bytes

    @classmethod
    def empty(cls, slots: int) -> "SlotTable":
        return cls(bytes(2 * slots), bytes(2 * slots))


def rebalance(table: SlotTable, weights: Mapping[int, int]) -> SlotTable:
    """The table for these nodes: number (1..65535) -> weight (1 or more), with the least movement from `table`.

    It is made while the loop waits, and many one after the other when a load balancer catches up. So of the many slots
    only those that may have to move are looked at one by one, and a node that goes and comes again and again, which
    brings back the same tables, costs next to nothing.
    """
    return _rebalanced(table, tuple(weights.items()))


@lru_cache(maxsize=16)
def _rebalanced(table: SlotTable, numbers_weights: tuple[tuple[int, int], ...]) -> SlotTable:
    weights = dict(numbers_weights)
    owners = list(memoryview(table.owners).cast("H"))
    previous = list(memoryview(table.previous).cast("H"))
    remembered = list(map(weights.__contains__, previous))
    held = Counter(owners)
    targets = _targets(len(owners), held, held - Counter(compress(owners, remembered)), weights)
    need = {number: target - held[number] for number, target in targets.items()}  # below zero: slots to give away

    def move(slot: int, to: int) -> None:
        owner = owners[slot]
        if owner in need:
            need[owner] += 1
        elif owner != NO_NODE:
            previous[slot] = owner
        owners[slot] = to
        if to != NO_NODE:
            need[to] -= 1

    giving = {owner for owner in held if need.get(owner, -1) < 0}
    loose = list(compress(range(len(owners)), map(giving.__contains__, owners)))
    taking = {number for number, count in need.items() if count > 0}
    for slot in compress(loose, map(taking.__contains__, map(previous.__getitem__, loose))):
        if need[previous[slot]] > 0 and need.get(owners[slot], -1) < 0:
            move(slot, previous[slot])

    # As many must still move as nodes need, or all where there is no node. Slots that an absent node owned before are
    # given away last, so that it finds them when it returns.
    receivers = [number for number in sorted(targets) for _ in range(need[number])]
    if receivers or not targets:
        present = {NO_NODE, *targets}
        first = [previous[slot] in present for slot in loose]
        for slot in chain(compress(loose, first), compress(loose, map(not_, first))):
            if need.get(owners[slot], -1) < 0:
                move(slot, receivers.pop() if receivers else NO_NODE)
    for slot in compress(range(len(owners)), remembered):
        if previous[slot] in targets:
            previous[slot] = NO_NODE
    return SlotTable(array("H", owners).tobytes(), array("H", previous).tobytes())


def _targets(slots: int, held: Counter[int], own: Counter[int], weights: Mapping[int, int]) -> dict[int, int]:
    """How many slots each node shall own: its quota, rounded down or up so that the sum is exact."""
    total = sum(weights.values())
    quotas = {number: divmod(slots * weight, total) for number, weight in weights.items()}
    targets = {number: whole for number, (whole, _) in quotas.items()}

    # First those it saves a move, among them those whose own slots it keeps, then by what is rounded away.
    rounding_up_helps = [
        (held[number] > whole, own[number] > whole, remainder, -number)
        for number, (whole, remainder) in quotas.items()
        if remainder
    ]
    extra = slots - sum(targets.values()) if weights else 0
    for *_, negative in sorted(rounding_up_helps, reverse=True)[:extra]:
        targets[-negative] += 1
    return targets
