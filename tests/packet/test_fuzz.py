"""The packet path against the model, on frames that nobody would think of: at length, and with faults planted in it."""

import random
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gale.dataplane.abi import verdicts
from gale.dataplane.compiler import source
from tests.packet.direct import on_one_cpu
from tests.packet.fuzz.__main__ import ROOT, again
from tests.packet.fuzz.cast import CASTS
from tests.packet.fuzz.hunt import Hunt
from tests.packet.fuzz.plants import PLANTS
from tests.packet.fuzz.rig import Rig, text_with

WITHIN_S = 1_200
"""At idle priority, beside other tests."""
PARTS, EPOCHS_OF_A_PART, EPOCHS = 4, 350, 100
"""Of a thousand frames each: two million with the six that serve less."""
EPOCHS_TO_BITE = 200
"""The plant that is hardest to find takes 4 on average, so that one in 10²⁰ runs would miss it."""
RARE = {"no_port", "no_room", "taking_over"}
"""Verdicts that need full tables or a change of layout; other tests see to them."""


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """The counters are one array."""
    with on_one_cpu():
        yield


def hunted(cast: str, epochs: int, part: int = 0) -> Hunt:
    """pytest-randomly seeds `random` before each test alike; the seed that it prints gives the same frames again."""
    seed = random.randrange(1 << 32) + part
    hunt = Hunt(Rig(CASTS[cast].settings, source(), explain=cast == "all"), seed, CASTS[cast])
    for number in range(epochs):
        failure = hunt.epoch(number)
        assert not failure, f"{failure}\n{again(cast, seed, number)}"
    return hunt


@pytest.mark.timeout(WITHIN_S)
@pytest.mark.usefixtures("bpf", "one_cpu")
@pytest.mark.parametrize("part", range(PARTS))
def test_the_packet_path_is_the_models(part: int) -> None:
    reached = hunted("all", EPOCHS_OF_A_PART, part).verdicts.keys()
    assert {verdict.name for verdict in verdicts()} - reached <= RARE, "the frames do not reach these"


@pytest.mark.timeout(WITHIN_S)
@pytest.mark.usefixtures("bpf", "one_cpu")
@pytest.mark.parametrize("name", sorted(CASTS.keys() - {"all"}))
def test_so_it_is_when_less_is_served(name: str) -> None:
    """What is not served is not compiled; and tables may be too small for all."""
    hunted(name, EPOCHS)


@pytest.mark.timeout(WITHIN_S)
@pytest.mark.usefixtures("bpf")
def test_processes_share_the_epochs() -> None:
    command = [sys.executable, "-m", "tests.packet.fuzz", "--inputs", "20000", "--jobs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert not done.returncode, f"{done.stdout}\n{done.stderr}"
    assert list(map(int, re.findall(r"^(\d+) inputs", done.stdout, re.MULTILINE))) == [10_000, 10_000]


@pytest.mark.timeout(WITHIN_S)
@pytest.mark.usefixtures("bpf", "one_cpu")
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    """Of whatever seed; and what shows it is made small, for the same frames have the same outcome again."""
    text = text_with(source(), PLANTS[name])
    hunt = Hunt(Rig(CASTS["all"].settings, text, explain="explanation" in name), random.randrange(1 << 32))
    failures = (hunt.epoch(number) for number in range(EPOCHS_TO_BITE))
    found = next((failure for failure in failures if failure), None)
    assert found, f"{hunt.inputs} inputs, and nobody noticed"
    assert len(found.inputs) < 20, "the sequence that shows it could be shorter"
