"""The simulation itself: the same seeds every time, and as many that were never run before.

A seed that breaks a promise is printed as the command that repeats it.
"""

import random

import pytest

from tests.sim.run import command, run_many

FIXED = 300
FRESH = 100
FOUND = (7, 25, 2287, 3104, 3108, 10010, 10356, 200979933, 334714023)
"""Seeds that have found a fault of gale: a snapshot half received, a sync a message, an epoch twice, a late answer,
a leader of a term that its full disk had not taken, a stream that stood still in one direction."""


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", ["fixed", "fresh"])
def test_no_promise_is_broken(kind: str) -> None:
    first, runs = (1, FIXED) if kind == "fixed" else (random.SystemRandom().randrange(1_000_000, 1_000_000_000), FRESH)
    results = list(run_many(range(first, first + runs)))
    broken = [
        f"{result.violation}\n  {command(result)}\n    " + "\n    ".join(line[:200] for line in result.last[-25:])
        for result in results
        if result.violation
    ]
    assert not broken, f"{len(broken)} of {runs} seeds from {first}:\n" + "\n".join(broken)
    assert len(results) == runs
    assert sum(result.acknowledged for result in results) > 100 * runs, "the clients got little done"


def test_a_seed_does_the_same_twice() -> None:
    once, again = (list(run_many(range(10, 16), jobs=jobs)) for jobs in (1, 2))
    assert [result.hash for result in once] == [result.hash for result in again]
    assert len({result.hash for result in once}) == len(once)


def test_what_was_found_once_stays_mended() -> None:
    broken = [f"{r.violation}\n  {command(r)}" for r in run_many(FOUND) if r.violation]
    assert not broken, "\n".join(broken)
