"""Metrics as Prometheus reads them, written by its own library, a little at a time.

Ten thousand nodes are seventy thousand lines. A family that is long is given to the library in parts, of which only the
first keeps its head, and between two parts the loop does its other work.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

STEP = 250
HEAD_LINES = 2
KIND = "text/plain; version=0.0.4; charset=utf-8"

_process = ProcessCollector(registry=None)


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        return "counter" if self.name.endswith("_total") else "gauge"


Row = tuple[tuple[str, ...], float]
Measured = tuple[Family, Iterable[Row]]


def one(value: float, *labels: str) -> list[Row]:
    return [(labels, value)]


async def exposition(measured: Iterable[Measured]) -> list[bytes]:
    """The families, and those of this process."""
    pieces = []
    for family, rows in measured:
        for place, part in enumerate(_parts(rows)):
            text = generate_latest(_Given([_metric(family, part)]))
            pieces.append(text.split(b"\n", HEAD_LINES)[HEAD_LINES] if place else text)
            await asyncio.sleep(0)
    pieces.append(generate_latest(_process))
    return pieces


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """At least one, so that a family without rows is named all the same."""
    source = iter(rows)
    yield list(islice(source, STEP))
    while part := list(islice(source, STEP)):
        yield part


def _metric(family: Family, rows: Iterable[Row]) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in rows:
        metric.add_metric(labels, value)
    return metric


class _Given(Collector):
    """What generate_latest asks a registry for."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
