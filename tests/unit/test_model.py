"""Scale on paper: lines are found again, limits are where lines meet them, and the model predicts what was measured.

Some tests take a world made up of straight lines; the others the committed results.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from bench.model import (
    CLUSTER,
    Measured,
    Straight,
    limits,
    measured,
    model,
    needs,
    predictions,
    slowest_beat,
    straight,
)
from bench.page import RESULTS, load
from bench.paper import paper
from gale.core.state import MAX_NODES

WORLD = Measured(
    resident_mb=[(nodes, 100 + 0.05 * nodes) for nodes in (10, 100, 1_000, 10_000)],
    cores=[(checks, 0.02 + 100e-6 * checks) for checks in (30, 300, 3_000)],
    snapshot_mb=[(nodes, 0.05 + 0.0002 * nodes) for nodes in (10, 100, 1_000)],
    failover_ms=[(count, 380 + 10 * count) for count in (3, 5, 7)],
    observations_per_s=20_000,
    joining_ms_per_node=0.006,
    elsewhere={"cores": (6_000, 0.62), "resident_mb": (10_000, 600)},
)


def results() -> dict[str, Any]:
    return {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ("control", "scale")}


def test_a_line_is_found_again() -> None:
    found = straight([(1, 5), (10, 14), (1_000, 1_004)])
    assert found.begin == pytest.approx(4)
    assert found.each == pytest.approx(1)
    assert found(6) == pytest.approx(10)
    assert found.where(10) == pytest.approx(6)


def test_a_line_counts_errors_by_their_part_of_the_value() -> None:
    """One tenth off at ten thousand bends it no more than one tenth off at ten."""
    found = straight([(10, 11), (100, 100), (1_000, 1_000), (10_000, 10_000)])
    assert found(10_000) == pytest.approx(10_000, rel=0.05)


def test_what_does_not_grow_reaches_nothing() -> None:
    assert Straight(1, 0).where(2) == float("inf")


def test_a_world_of_lines_is_predicted() -> None:
    assert len(predictions(WORLD)) == 6
    assert all(abs(it.error) < 1e-6 for it in predictions(WORLD))


def test_a_world_that_bends_is_not() -> None:
    bent = replace(WORLD, resident_mb=[*WORLD.resident_mb[:-1], (10_000, 2_000)])
    assert max(abs(it.error) for it in predictions(bent)) > 0.5


def test_what_a_cluster_needs() -> None:
    found = needs(model(WORLD), 3, 10_000)
    assert (found.clusters, found.nodes_each) == (1, 10_000)
    assert found.checks_per_s == pytest.approx(6_000)
    assert found.cores == pytest.approx(0.62)
    assert found.resident_mb == pytest.approx(600)
    assert found.snapshot_mb == pytest.approx(2.05)
    assert found.failover_ms == pytest.approx(410)
    assert found.log_per_s == pytest.approx(2 * 3 * 10_000 / 86_400)
    assert found.lost_s == pytest.approx(3 * 1_000 / 20_000)
    assert (found.beyond, found.enough) == ((), 3)


def test_more_load_balancers_are_more_clusters() -> None:
    found = needs(model(WORLD), 100, 1_000_000)
    assert (found.clusters, found.nodes_each) == (33, 30_304)
    assert found.beyond[0] == "one core takes all checks"
    enough = needs(model(WORLD), found.enough, 1_000_000)
    assert not enough.beyond
    assert needs(model(WORLD), found.enough - CLUSTER, 1_000_000).beyond


def test_the_first_limit_moves_with_the_beat() -> None:
    of = model(WORLD)
    first = next(limit for limit in limits(of) if limit.hard)
    assert (first.name, first.nodes) == ("one core takes all checks", 16_333)
    slower = next(limit for limit in limits(of, timeout_s=20) if limit.hard)
    assert slower.nodes == MAX_NODES
    assert of.cores(3 * MAX_NODES / slowest_beat(of, MAX_NODES)) == pytest.approx(1)


def test_the_model_predicts_points_that_it_has_not_seen() -> None:
    """Of the committed results, each largest point from the smaller ones. Two cores that seven load balancers and a
    crowd share are why it may miss by so much."""
    made = predictions(measured(**results()))
    assert len(made) >= 5
    assert {it.what: f"{it.error:+.0%}" for it in made if abs(it.error) > 0.5} == {}


def test_its_parameters_are_those_of_the_files() -> None:
    """What the files say, the page says: twice the memory measured, twice the memory written."""
    given = results()
    before = paper(**given)
    for it in given["scale"]["results"]:
        if it["figure"] == "resident":
            it["median"] *= 2
    assert paper(**given) != before
    assert before == paper(load()["control"], load()["scale"])
