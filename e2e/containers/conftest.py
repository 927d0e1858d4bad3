"""Tests on machines of their own: minutes, and no part of a usual run. `pytest e2e/containers --containers`."""

from pathlib import Path

import pytest

from e2e.containers.base import ROOT


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("--containers") or collection_path.suffix != ".py" else True


@pytest.fixture(scope="session")
def package() -> Path:
    built = sorted((ROOT / "build/deb").glob("gale_*.deb"))
    assert built, "build/deb holds no package: make deb"
    return built[-1]
