"""Labs to be troubled, and where the figures go.

The short form is part of every run of the e2e tests: few repetitions, short durations. The long form, `--faults long`,
has the repetitions and durations of the list of faults, prints the table of figures, and writes it with
`--faults-results DIR`.

One lab serves every test that asks for the same options; a test that changes what a restart does not undo discards it.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import UP_WITHIN_S
from e2e.faults import scenes
from e2e.faults.results import Results
from gale.errors import LabError
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.options import LabOptions

log = logging.getLogger(__name__)
RESULTS = pytest.StashKey[Results]()
MENDED_WITHIN_S = 15.0
LONG_TIMEOUT_S = 1_800


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--faults") == "long")


class Labs:
    """At most one lab at a time, kept for as long as it is what the next test wants."""

    def __init__(self) -> None:
        self._lab = Lab("gale-faults")
        self._options: LabOptions | None = None

    def whole(self, options: LabOptions) -> Lab:
        """A lab in which everything runs and every node routes, however the test before left it."""
        if self._options == options:
            try:
                self._mend()
                return self._lab
            except (AssertionError, LabError) as error:
                log.warning("what the test before left is of no use, there will be a new lab: %s", error)
        self.discard()
        self._lab.up(options)
        self._lab.wait_routing(UP_WITHIN_S)
        self._options = options
        return self._lab

    def _mend(self) -> None:
        for instance in self._lab.status():
            if not instance.running and self._lab.started(instance.name):
                self._lab.start(instance.name)
        scenes.undrain(self._lab)
        self._lab.wait_routing(MENDED_WITHIN_S)

    def discard(self) -> None:
        self._options = None
        self._lab.down()


@pytest.fixture(scope="session")
def labs() -> Iterator[Labs]:
    labs = Labs()
    yield labs
    labs.discard()


@pytest.fixture
def lab(labs: Labs, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab for a test's OPTIONS; one marked `discards` leaves it of no use to others."""
    lab = labs.whole(options_of(request.node))
    yield lab
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
    return pytestconfig.stash.setdefault(RESULTS, Results(Path(directory) if directory else None))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "discards: the lab is not used again after this test")
    config.addinivalue_line("markers", "lab(options): the lab that this test wants, if not its file's OPTIONS")
    config.addinivalue_line("markers", "long_form: not in the short form")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that want the same lab follow each other, those that spoil it come last; else the order is by chance."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    labs = list(dict.fromkeys(options_of(item) for item in ours))
    ours.sort(key=lambda item: (labs.index(options_of(item)), item.get_closest_marker("discards") is not None))
    items[:] = [item for item in items if Path(__file__).parent not in item.path.parents] + ours
    for item in ours:
        if config.getoption("--faults") == "long":
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_S))
        elif item.get_closest_marker("long_form"):
            item.add_marker(pytest.mark.skip("a part of the long form: --faults long"))


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
