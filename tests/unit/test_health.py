"""The judgement as a table: what three load balancers have seen, and what follows for the node."""

import pytest

from gale.core.health import Judgement, judge

A, B, C = "a", "b", "c"
ALL, TWO = frozenset({A, B, C}), frozenset({A, B})
RISES, FALLS, STAYS = Judgement.RISES, Judgement.FALLS, Judgement.STAYS


@pytest.mark.parametrize(
    ("checks", "reports_to", "voters", "expected"),
    [
        ({A: 3, B: 3, C: 3}, 3, ALL, RISES),
        ({A: 3, B: 3}, 3, ALL, RISES),
        ({A: 3, B: 3, C: 0}, 3, ALL, RISES),
        ({A: 3}, 3, ALL, STAYS),  # two have not heard of it yet
        ({A: 3}, 1, ALL, RISES),  # it reports to one only
        ({A: 3, B: 1}, 3, ALL, STAYS),
        ({A: 3, B: 0, C: 1}, 3, ALL, FALLS),  # one against one, and the third has no opinion
        ({A: 3, B: 0, C: 0}, 3, ALL, FALLS),
        ({A: 1, B: 2, C: 1}, 3, ALL, STAYS),  # all have just started to count
        ({A: 0, B: 0, C: 0}, 3, ALL, FALLS),
        ({A: 3, B: 3, C: 0}, 3, TWO, RISES),  # the dead one's opinion is not asked
        ({A: 3, B: 0, C: 3}, 3, TWO, FALLS),
        ({A: 3}, 3, TWO, STAYS),
        ({}, 3, ALL, STAYS),
        ({A: 3}, 3, frozenset(), STAYS),  # nobody to judge it
        ({A: 5, B: 5, C: 5}, 3, ALL, RISES),  # counted under an older, longer rule
    ],
)
def test_judgement(checks: dict[str, int], reports_to: int, voters: frozenset[str], expected: Judgement) -> None:
    assert judge(checks, reports_to, voters, needed=3) is expected
