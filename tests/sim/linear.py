"""Is a recorded history linearizable? Wing and Gong's search, with Lowe's memory of what was tried, for one register.

Each operation was called at one time and returned at another. The history is linearizable when an instant can be chosen
for each of them between the two, such that done in that order every read gets what was written last. An operation that
never returned, or whose outcome is not known, may have happened at any time after its call, or never: a read of that
kind says nothing and is left out, a write may be chosen or not.

The search takes, of the operations whose call is not after the first return that is still open, each that the register
allows next, and goes back when there is none. The order so far matters only through which operations are done and
what the register holds, and such a pair is tried once. Registers are independent of each other (that is what makes
linearizability local), so each is checked by itself.

The search is exponential at worst, where many operations are under way at once. But whoever records a history may know
an order that should do, from a log: `place`. That order is tried first, and if it is right nothing has to be searched;
it proves itself, so nothing is believed of the log.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

NEVER_S = float("inf")


@dataclass(frozen=True, slots=True)
class Operation:
    """`returned_s` is NEVER_S when the outcome is not known. `value`: what was written, or what a read got. `place`:
    its place in an order that should do."""

    called_s: float
    returned_s: float
    writes: bool
    value: Hashable
    place: float = 0.0


def linearizable(history: Iterable[Operation], initial: Hashable, steps_max: int = 200_000) -> bool:
    """Also False when it is not found out in so many steps, which only happens where the order by places is wrong."""
    history = list(history)
    return _is_right(sorted(history, key=lambda operation: operation.place), initial) or _search(
        history, initial, steps_max
    )


def _is_right(order: list[Operation], value: Hashable) -> bool:
    """Whether the operations can have happened in this order."""
    earliest_s = 0.0  # the next may not have returned before
    for operation in order:
        earliest_s = max(earliest_s, operation.called_s)
        if operation.returned_s < earliest_s:
            return False
        if operation.writes:
            value = operation.value
        elif operation.value != value and operation.returned_s != NEVER_S:
            return False
    return True


def _search(history: list[Operation], initial: Hashable, steps_max: int) -> bool:
    operations = sorted(
        (operation for operation in history if operation.writes or operation.returned_s != NEVER_S),
        key=lambda operation: operation.called_s,
    )
    known = frozenset(n for n, operation in enumerate(operations) if operation.returned_s != NEVER_S)
    tried: set[tuple[int, Hashable]] = set()
    path = [(0, initial, _open(operations, 0))]  # what is done (a bit each), what the register holds, what may be next
    wanted = sum(1 << n for n in known)
    while path and len(tried) < steps_max:
        done, value, choices = path[-1]
        if done & wanted == wanted:
            return True
        if not choices:
            path.pop()
            continue
        chosen = choices.pop()
        operation = operations[chosen]
        if not operation.writes and operation.value != value:
            continue
        after = (done | 1 << chosen, operation.value)
        if after not in tried:
            tried.add(after)
            path.append((*after, _open(operations, after[0])))
    return False


def _open(operations: list[Operation], done: int) -> list[int]:
    """What may be next: not done, and called before everything else that is not done has returned. Best one last."""
    found: list[int] = []
    first_return_s = NEVER_S
    for n, operation in enumerate(operations):
        if done >> n & 1:
            continue
        if operation.called_s > first_return_s:
            break
        found.append(n)
        first_return_s = min(first_return_s, operation.returned_s)
    found.sort(key=lambda n: (operations[n].returned_s, -n), reverse=True)
    return found
