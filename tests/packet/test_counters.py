"""What was counted: verdicts cost the same whatever there is of nodes, and the loop has turns while nodes are read."""

import asyncio
import struct
from collections.abc import Iterator

import pytest

from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.counters import STEP, counters, verdicts
from gale.ports import Traffic
from tests.packet.balancer import NAMES, Balancer
from tests.turns import turns

WORDS = 5
NODES = (1, 2, STEP, STEP + 1, 10_000)


@pytest.fixture
def traffic(loaded: Balancer) -> Iterator[BpfMap]:
    """Of these nodes and no others, whatever ran before; of each by its number, on every processor."""
    table = loaded.program.maps["node_traffic"]
    table.clear()
    table.update_many({number: struct.pack("=5Q", *[number] * WORDS) * table.copies for number in NODES})
    yield table
    table.clear()


def test_totals_read_the_part_that_holds_the_numbers(traffic: BpfMap) -> None:
    everything = traffic.totals()
    assert list(everything) == list(range(traffic.max_entries))
    for numbers in ((1,), (0,), (traffic.max_entries - 1,), (10_000, 2, 3), range(STEP, 10_001), ()):
        assert traffic.totals(numbers) == {number: everything[number] for number in numbers}
    assert traffic.totals((STEP,)) == {STEP: (STEP * traffic.copies,) * WORDS}
    assert len(traffic.read(10_000, 1)) == traffic.value_size
    assert traffic.read(9_999) == traffic.read()[9_999 * traffic.value_size :]


def test_verdicts_are_told_without_a_look_at_the_nodes(loaded: Balancer) -> None:
    assert list(verdicts({"verdicts": loaded.program.maps["verdicts"]})) == list(NAMES)


def test_nodes_are_read_in_steps(loaded: Balancer, traffic: BpfMap) -> None:
    asked = range(1, traffic.max_entries)
    told, taken = asyncio.run(turns(counters(loaded.program.maps, ("web",), asked)))
    assert told.nodes == {number: Traffic(*[number * traffic.copies] * WORDS) for number in NODES}
    assert taken >= len(asked) // STEP
