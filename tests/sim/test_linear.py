"""The checker of histories, on histories whose answer is known, and against trying every order."""

import itertools
import random

import pytest

from tests.sim.linear import NEVER_S, Operation, linearizable


def write(called_s: float, returned_s: float, value: int) -> Operation:
    return Operation(called_s, returned_s, True, value)


def read(called_s: float, returned_s: float, value: int) -> Operation:
    return Operation(called_s, returned_s, False, value)


GOOD = {
    "nothing": [],
    "one after the other": [write(0, 1, 1), read(2, 3, 1), write(4, 5, 2), read(6, 7, 2)],
    "a read beside a write gets the old": [write(0, 9, 1), read(1, 2, 0)],
    "or the new": [write(0, 9, 1), read(1, 2, 1)],
    "two writes at once, either order": [write(0, 9, 1), write(0, 9, 2), read(10, 11, 1)],
    "an unknown write that happened": [write(0, NEVER_S, 1), read(5, 6, 1)],
    "an unknown write that did not": [write(0, NEVER_S, 1), read(5, 6, 0)],
    "an unknown write that happened late": [write(0, NEVER_S, 1), read(5, 6, 0), write(7, 8, 2), read(9, 10, 1)],
    "an unknown read says nothing": [read(0, NEVER_S, 7)],
}
BAD = {
    "a stale read": [write(0, 1, 1), write(2, 3, 2), read(4, 5, 1)],
    "a write that is lost": [write(0, 1, 1), read(2, 3, 0)],
    "a value from nowhere": [read(0, 1, 7)],
    "new, then old": [write(0, 9, 1), read(1, 2, 1), read(3, 4, 0)],
    "a write that happens twice": [write(0, 1, 1), read(2, 3, 1), write(4, 5, 2), read(6, 7, 2), read(8, 9, 1)],
    "an unknown write that happens twice": [
        write(0, NEVER_S, 1),
        read(1, 2, 1),
        write(3, 4, 2),
        read(5, 6, 2),
        read(7, 8, 1),
    ],
    "before it was called": [read(0, 1, 1), write(2, 3, 1)],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories(name: str) -> None:
    assert linearizable(GOOD[name], 0)


@pytest.mark.parametrize("name", BAD)
def test_bad_histories(name: str) -> None:
    assert not linearizable(BAD[name], 0)


def by_trying_all(history: list[Operation]) -> bool:
    """Every order of every choice of the unknown writes."""
    known = [operation for operation in history if operation.returned_s != NEVER_S]
    unknown = [operation for operation in history if operation.returned_s == NEVER_S and operation.writes]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                if _right(order):
                    return True
    return False


def _right(order: tuple[Operation, ...]) -> bool:
    value = 0
    for n, operation in enumerate(order):
        if any(later.returned_s < operation.called_s for later in order[n + 1 :]):
            return False
        if operation.writes:
            value = operation.value  # type: ignore[assignment]
        elif operation.value != value:
            return False
    return True


def test_it_agrees_with_trying_every_order() -> None:
    chance = random.Random(1)
    answers = set()
    for _ in range(400):
        history = []
        for _ in range(chance.randint(1, 6)):
            called_s = chance.randint(0, 9)
            returned_s = chance.choice([called_s + chance.randint(0, 5), NEVER_S])
            history.append(Operation(called_s, returned_s, chance.random() < 0.5, chance.randint(0, 2)))
        answers.add(by_trying_all(history))
        assert linearizable(history, 0) == by_trying_all(history), history
    assert answers == {True, False}


def test_the_order_by_places_is_not_believed() -> None:
    right = [Operation(0, 1, True, 1, place=1), Operation(2, 3, False, 1, place=2)]
    assert linearizable(right, 0, steps_max=0)
    assert not linearizable([right[0], Operation(2, 3, False, 0, place=0)], 0), "the read was called too late for that"
    assert not linearizable([right[0], Operation(2, 3, False, 7, place=2)], 0), "nobody wrote that"


def test_a_long_history_takes_no_long_time() -> None:
    chance = random.Random(2)
    history, value = [], 0
    for n in range(400):
        if chance.random() < 0.5:
            value = n
            history.append(write(n, NEVER_S if chance.random() < 0.1 else n + 0.5, n))
        else:
            history.append(read(n, n + 0.5, value))
    assert linearizable(history, 0)
