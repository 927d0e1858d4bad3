"""Would it notice? For each fault that is planted in gale, a violation is found within the stated number of runs; and
without the fault the same setting breaks nothing."""

import pytest

from tests.sim.plants import PLANTS
from tests.sim.run import command, run_many


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    plant = PLANTS[name]
    runs = run_many(range(1, plant.runs + 1), plant=name, jobs=1)
    try:
        found = next((result for result in runs if result.violation), None)
    finally:
        runs.close()
    assert found, f"{plant.what}, and nothing was noticed in {plant.runs} runs"


@pytest.mark.parametrize("name", PLANTS)
def test_without_it_the_same_setting_breaks_nothing(name: str) -> None:
    for result in run_many(range(1, 4), plant=name, unplanted=True, jobs=1):
        assert not result.violation, f"{result.violation}\n{command(result, plant=name)} --unplanted"
