"""The judge of what operators were told is itself judged: it accepts what can be explained and nothing else."""

import itertools
import random

import pytest

from e2e.faults.history import linearizable
from gale.lab.orders import Order


def order(kind: str, began_s: float, ended_s: float, drained: bool | None = None, error: str | None = None) -> Order:
    return Order(0, began_s, ended_s, "10.77.2.10:5555", "node-1", kind, drained, error)


def read(began_s: float, ended_s: float, drained: bool) -> Order:
    return order("read", began_s, ended_s, drained)


@pytest.mark.parametrize(
    ("history", "explained"),
    [
        ([], True),
        ([order("drain", 0, 1), read(2, 3, True)], True),
        ([order("drain", 0, 1), read(2, 3, False)], False),
        ([order("drain", 0, 3), read(1, 2, False), read(1, 2, True)], True),
        ([order("drain", 0, 1), order("undrain", 0, 1), read(2, 3, True), read(4, 5, True)], True),
        ([order("drain", 0, 1), order("undrain", 0, 1), read(2, 3, True), read(4, 5, False)], False),
        ([order("undrain", 0, 1), order("drain", 2, 3, error="lost"), read(4, 5, False), read(6, 7, True)], True),
        ([order("undrain", 0, 1), read(2, 3, True), order("drain", 4, 5, error="lost")], False),
        (
            # the order that was lost happened once: it cannot undo the later one as well
            [
                order("undrain", 0, 1),
                order("drain", 2, 3, error="lost"),
                read(4, 5, True),
                order("undrain", 6, 7),
                read(8, 9, True),
            ],
            False,
        ),
        ([order("drain", 0, 1), order("read", 2, 3, error="lost"), read(4, 5, True)], True),
    ],
)
def test_what_can_be_explained_is_and_nothing_else(history: list[Order], explained: bool) -> None:
    assert linearizable(history, "node-1") == explained


def test_other_nodes_do_not_matter() -> None:
    assert linearizable([order("drain", 0, 1), read(2, 3, False)], "node-2")


@pytest.mark.parametrize("seed", range(100))
def test_it_agrees_with_trying_every_order(seed: int) -> None:
    chance = random.Random(seed)
    history = []
    for _ in range(6):
        began_s = chance.uniform(0, 10)
        kind = chance.choice(("read", "read", "drain", "undrain"))
        error = "lost" if kind != "read" and chance.random() < 0.3 else None
        drained = chance.random() < 0.5 if kind == "read" else None
        history.append(order(kind, began_s, began_s + chance.uniform(0, 5), drained, error))
    assert linearizable(history, "node-1") == explained_by_trying(history)


def explained_by_trying(history: list[Order]) -> bool:
    sure = [o for o in history if o.error is None]
    lost = [o for o in history if o.error is not None]
    for count in range(len(lost) + 1):
        for chosen in itertools.combinations(lost, count):
            if any(explains(sequence) for sequence in itertools.permutations([*sure, *chosen])):
                return True
    return False


def explains(sequence: tuple[Order, ...]) -> bool:
    for i, one in enumerate(sequence):
        if any(later.error is None and later.ended_s < one.began_s for later in sequence[i + 1 :]):
            return False
    return any(reads_right(sequence, start) for start in (False, True))


def reads_right(sequence: tuple[Order, ...], drained: bool) -> bool:
    for one in sequence:
        if one.kind != "read":
            drained = one.kind == "drain"
        elif one.drained != drained:
            return False
    return True
