"""What the packet path has counted, added up over the processors.

Nodes can be ten thousand, each counted on every processor: they are read a few at a time, and the loop has other work
between.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from gale.dataplane import abi
from gale.dataplane.bpfmap import BpfMap
from gale.ports import Counters, Traffic

STEP = 512
"""Nodes that are read together."""


def verdicts(maps: Mapping[str, BpfMap]) -> dict[str, int]:
    totals = maps["verdicts"].totals()
    return {verdict.name: totals[index][0] for index, verdict in enumerate(abi.verdicts())}


async def counters(maps: Mapping[str, BpfMap], services: Sequence[str], nodes: Collection[int]) -> Counters:
    """`services`: in the order that numbers them; `nodes`: the numbers to ask for. Those without traffic are left
    out."""
    numbers, by_node = sorted(nodes), dict[int, Traffic]()
    for begin in range(0, len(numbers), STEP):
        by_node |= _moved(maps["node_traffic"], numbers[begin : begin + STEP])
        await asyncio.sleep(0)
    by_service = _moved(maps["service_traffic"], range(len(services)))
    return Counters(
        verdicts=verdicts(maps),
        services={services[number]: traffic for number, traffic in by_service.items()},
        nodes=by_node,
    )


def _moved(table: BpfMap, numbers: Collection[int]) -> dict[int, Traffic]:
    """By the names that the fields have in bpf/abi.h, too."""
    names = [name for name, *_ in table.Leaf._fields_]
    totals = table.totals(numbers)
    return {number: Traffic(**dict(zip(names, words, strict=True))) for number, words in totals.items() if any(words)}
