"""Real gale programs in network namespaces. Labs here have a prefix of their own and do not meet a lab that is up.

Tests share: one lab serves every test that asks for the same options, one after the other, and a test that changes what
a restart does not undo discards it.

The short form of e2e/faults is part of every run: few repetitions, short durations. The long form, `--faults long`,
has the repetitions and durations of the list of faults. Figures are written with `--faults-results DIR`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.faults.results import SHORT_SLACK, Results
from e2e.labs import Labs
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.options import LabOptions

RESULTS = pytest.StashKey[Results]()
LONG_TIMEOUT_S = 1_800


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gale")
    group.addoption("--faults", choices=["short", "long"], default="short", help="how long e2e/faults troubles gale")
    group.addoption("--containers", action="store_true", help="also e2e/containers, on machines that boot for it")
    group.addoption("--monitoring", action="store_true", help="also e2e/test_monitoring.py: Prometheus scrapes a lab")
    group.addoption("--inventory", metavar="FILE", help="of ansible: also e2e/hosts, on the machines that it names")
    group.addoption("--faults-results", metavar="DIR", help="write the faults' figures there, as JSON and Markdown")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "discards: the lab is not used again after this test")
    config.addinivalue_line(
        "markers", "leaves_whole: everything in the lab runs and routes after this test as before it"
    )
    config.addinivalue_line("markers", "lab(options): the lab that this test wants, if not its file's OPTIONS")
    config.addinivalue_line("markers", "long_form: not in the short form")


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.exit("e2e tests build network namespaces and load BPF programs: run them as root", returncode=1)


@pytest.fixture(scope="session")
def labs() -> Iterator[Labs]:
    labs = Labs("gale-e2e")
    yield labs
    labs.discard()


@pytest.fixture
def lab(labs: Labs, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab for a test's OPTIONS; one marked `discards` leaves it of no use to others."""
    lab = labs.whole(options_of(request.node))
    labs.is_whole = False
    yield lab
    labs.is_whole = request.node.get_closest_marker("leaves_whole") is not None
    if request.node.get_closest_marker("discards"):
        labs.discard()


@pytest.fixture
def faults(lab: Lab) -> Iterator[Faults]:
    faults = Faults(lab)
    yield faults
    faults.mend()


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Results:
    directory = pytestconfig.getoption("--faults-results")
    slack = SHORT_SLACK if pytestconfig.getoption("--faults") == "short" else 1.0
    return pytestconfig.stash.setdefault(RESULTS, Results(Path(directory) if directory else None, slack))


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--faults") == "long")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that want the same lab follow each other, those that spoil it come last; else the order is by chance."""
    ours = [item for item in items if shares(item)]
    labs = list(dict.fromkeys(options_of(item) for item in ours))
    ours.sort(key=lambda item: (labs.index(options_of(item)), item.get_closest_marker("discards") is not None))
    items[:] = [item for item in items if not shares(item)] + ours
    for item in ours:
        if config.getoption("--faults") == "long":
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_S))
        elif item.get_closest_marker("long_form"):
            item.add_marker(pytest.mark.skip("a part of the long form: --faults long"))


def shares(item: pytest.Item) -> bool:
    return "lab" in getattr(item, "fixturenames", ())


def options_of(item: pytest.Item) -> LabOptions:
    """What a test's mark `lab` says, or its file's OPTIONS."""
    mark = item.get_closest_marker("lab")
    options: LabOptions = mark.args[0] if mark else getattr(getattr(item, "module", None), "OPTIONS", LabOptions())
    return options


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(RESULTS, None)
    if results is None:
        return
    terminalreporter.section("faults")
    for row in results.sorted():
        mark = "held    " if row.held else "NOT HELD"
        terminalreporter.write_line(f"{mark} {row.fault}: {row.done}: {row.measured} (bound: {row.bound})")
