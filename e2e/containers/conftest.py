"""Tests on machines of their own: minutes, and no part of a usual run. `pytest e2e/containers --containers`."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("--containers") or collection_path.suffix != ".py" else True
