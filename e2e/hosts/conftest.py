"""Tests on machines that are there already, Vagrant's or those of `make e2e-containers`:

pytest e2e/hosts --inventory ansible/e2e-hosts.ini
"""

from pathlib import Path

import pytest

from e2e.hosts.hosts import Inventory
from e2e.waiting import until

WHOLE_WITHIN_S = 120.0


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """Unlike other e2e tests these touch nothing of the machine that runs them, and are run by whose SSH keys serve."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("--inventory") or collection_path.suffix != ".py" else True


@pytest.fixture(scope="session")
def inventory_file(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--inventory"))


@pytest.fixture(scope="session")
def machines(inventory_file: Path) -> Inventory:
    return Inventory.read(inventory_file)


@pytest.fixture
def whole(machines: Inventory) -> Inventory:
    """All of them up and routing, however the test before left them."""
    until(machines.missing, WHOLE_WITHIN_S)
    return machines
