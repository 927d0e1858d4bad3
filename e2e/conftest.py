"""Real gale programs in network namespaces. Labs here have a prefix of their own and do not meet a lab that is up."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gale.lab.cluster import Lab
from gale.lab.options import LabOptions

UP_WITHIN_S = 30.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gale")
    group.addoption("--faults", choices=["short", "long"], default="short", help="how long e2e/faults troubles gale")
    group.addoption("--faults-results", metavar="DIR", help="write the faults' figures there, as JSON and Markdown")


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.exit("e2e tests build network namespaces and load BPF programs: run them as root", returncode=1)


@contextmanager
def running_lab(options: LabOptions) -> Iterator[Lab]:
    """A lab in which every node routes; an earlier one that was left behind is removed first."""
    lab = Lab("gale-e2e")
    lab.down()
    try:
        lab.up(options)
        lab.wait_routing(UP_WITHIN_S)
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One lab per file, built for the file's OPTIONS."""
    with running_lab(getattr(request.module, "OPTIONS", LabOptions())) as lab:
        yield lab


@pytest.fixture
def whole(lab: Lab) -> Lab:
    """The file's lab with everything running and routing, however the test before left it."""
    for instance in lab.status():
        if not instance.running:
            lab.start(instance.name)
    lab.wait_routing(UP_WITHIN_S)
    return lab


def until(missing: Callable[[], str | None], within_s: float) -> float:
    """Wait until nothing is missing; returns the seconds it took, and fails with what still is."""
    began = time.monotonic()
    while (what := missing()) is not None:
        assert time.monotonic() - began <= within_s, f"after {within_s} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - began
