"""The C headers and Python agree, where both say something."""

import re

from gale.dataplane.abi import BPF_DIRECTORY, Action, verdicts
from gale.dataplane.settings import LISTENERS_PER_PORT
from tests.packet.balancer import Balancer


def test_every_verdict_is_read_from_the_header() -> None:
    """What follows VERDICT( in the list, apart from the macro's own parameter, is a verdict that Python knows."""
    names = re.findall(r"VERDICT\((\w+),", (BPF_DIRECTORY / "verdict.h").read_text().split("#define VERDICTS")[1])
    assert [verdict.name for verdict in verdicts()] == [name.lower() for name in names]
    assert len(names) == len(set(names))


def test_the_map_of_counters_has_a_place_for_each(balancer: Balancer) -> None:
    assert len(balancer.table("verdicts")) == len(verdicts())


def test_each_action_is_used() -> None:
    assert {verdict.action for verdict in verdicts()} == set(Action)


def test_the_longest_chain_of_listeners() -> None:
    text = (BPF_DIRECTORY / "service.h").read_text()
    assert f"#define CHAIN_MAX {LISTENERS_PER_PORT}\n" in text
