"""The simulation itself: the same seeds every time, and as many that were never run before.

A seed that breaks a promise is printed as the command that repeats it.
"""

import random

import pytest

from tests.sim.run import command, run_many

RUNS = 50
FIXED, FRESH = 6, 2
"""How often so many seeds are run: a part is a test of one process, and other tests run beside it."""
FOUND = (7, 25, 2287, 3104, 3108, 10010, 10356, 200979933, 334714023)
"""Seeds that have found a fault of gale: a snapshot half received, a sync a message, an epoch twice, a late answer,
a leader of a term that its full disk had not taken, a stream that stood still in one direction."""


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("part", [*range(FIXED), *["fresh"] * FRESH])
def test_no_promise_is_broken(part: int | str) -> None:
    first = random.SystemRandom().randrange(1_000_000, 1_000_000_000) if part == "fresh" else 1 + RUNS * int(part)
    results = list(run_many(range(first, first + RUNS), jobs=1))
    broken = [
        f"{result.violation}\n  {command(result)}\n    " + "\n    ".join(line[:200] for line in result.last[-25:])
        for result in results
        if result.violation
    ]
    assert not broken, f"{len(broken)} of {RUNS} seeds from {first}:\n" + "\n".join(broken)
    assert len(results) == RUNS
    assert sum(result.acknowledged for result in results) > 100 * RUNS, "the clients got little done"


def test_a_seed_does_the_same_twice() -> None:
    once, again = (list(run_many(range(10, 16), jobs=jobs)) for jobs in (1, 2))
    assert [result.hash for result in once] == [result.hash for result in again]
    assert len({result.hash for result in once}) == len(once)


def test_what_was_found_once_stays_mended() -> None:
    broken = [f"{r.violation}\n  {command(r)}" for r in run_many(FOUND) if r.violation]
    assert not broken, "\n".join(broken)
