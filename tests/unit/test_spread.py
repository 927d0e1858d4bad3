"""The benchmark of spread and disruption: circles are what their papers promise, and the committed lines come again."""

import json
from collections.abc import Mapping

import pytest

from bench.hashing import CIRCLE, MAGLEV_ENTRIES, Circle, Maglev, Ring, Slots, moved, shares
from bench.page import RESULTS
from bench.spread import Line, figures, lines

EQUAL = dict.fromkeys(range(1, 21), 1)
MIXED = {number: 1 + number % 5 for number in range(1, 21)}


def test_shares_are_the_lengths_of_arcs() -> None:
    assert shares([(1, 7), (3, 8), (4, 7)]) == {7: 0.5, 8: 0.5}


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ([(2, 1), (4, 2)], [(2, 1), (4, 2)], 0),
        ([(2, 1), (4, 2)], [(2, 2), (4, 1)], 1),
        ([(2, 1), (4, 2)], [(1, 1), (3, 2), (4, 3)], 0.5),
        ([(4, 1)], [(1, 1), (3, 2), (4, 1)], 0.5),
    ],
)
def test_moved_is_where_circles_differ(before: Circle, after: Circle, share: float) -> None:
    assert moved(before, after) == moved(after, before) == share


@pytest.mark.parametrize("weights", [EQUAL, MIXED])
def test_maglev_gives_each_its_part_of_the_entries(weights: Mapping[int, int]) -> None:
    """The turns of the heaviest differ from those of another by what their weights say, to one entry."""
    circle = Maglev(1).change(weights)
    assert len(circle) == MAGLEV_ENTRIES
    total = sum(weights.values())
    for node, share in shares(circle).items():
        assert abs(share * MAGLEV_ENTRIES - MAGLEV_ENTRIES * weights[node] / total) < max(weights.values()) + 1


def test_a_ring_moves_only_what_it_must() -> None:
    ring = Ring(1)
    every = ring.change(EQUAL)
    assert every[-1][0] == CIRCLE
    without = ring.change({number: 1 for number in EQUAL if number != 7})
    assert moved(every, without) == pytest.approx(shares(every)[7])


def test_slots_remember() -> None:
    slots = Slots(0)
    before = slots.change(MIXED)
    slots.change({number: weight for number, weight in MIXED.items() if number != 7})
    assert moved(before, slots.change(MIXED)) < 0.001


def test_the_committed_lines_come_again() -> None:
    """They are exact, so some of them made anew are the same."""
    known = {
        (it["contestant"], it["weights"], it["nodes"], it["figure"]): Line(**it)
        for it in json.loads((RESULTS / "spread.json").read_text())["results"]
    }
    for scheme in (Slots, Maglev, Ring):
        for weights in ("equal", "1 to 10"):
            for figure, value in figures(scheme, weights, 10, seed=0):
                line = known[scheme.name, weights, 10, figure]
                assert line.low - 1e-6 <= value <= line.high + 1e-6


def test_every_size_is_there() -> None:
    there = {(it["contestant"], it["nodes"]) for it in json.loads((RESULTS / "spread.json").read_text())["results"]}
    assert there == {(name, nodes) for name in ("gale", "Maglev", "ring") for nodes in (2, 3, 10, 30, 100, 300, 1_000)}


def test_a_short_form_has_the_same_figures() -> None:
    made = lines(quick=True)
    assert {next(made).figure for _ in range(5)} == {"worst share", "removal", "flap", "addition", "twenty flaps"}
