"""Counting requests: what was answered by whom, what failed and how, and how long it took. Pure values.

Latencies go into buckets that grow by a sixteenth of a doubling (4.4 %), so that a tally has a small size however many
requests it counts, and tallies of intervals and of a whole run are the same thing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

BUCKETS_PER_DOUBLING = 16
FAILURES_LISTED_MAX = 50


@dataclass(frozen=True, slots=True)
class Failure:
    """`started_s`: when the request began, on the machine's monotonic clock, which all processes share."""

    started_s: float
    kind: str


@dataclass(slots=True)
class Tally:
    nodes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    listed: list[Failure] = field(default_factory=list)
    buckets: Counter[int] = field(default_factory=Counter)

    @property
    def ok(self) -> int:
        return self.nodes.total()

    @property
    def failed(self) -> int:
        return self.failures.total()

    def answered(self, node: str, latency_s: float) -> None:
        self.nodes[node] += 1
        self.buckets[bucket(latency_s)] += 1

    def fail(self, failure: Failure) -> None:
        self.failures[failure.kind] += 1
        if len(self.listed) < FAILURES_LISTED_MAX:
            self.listed.append(failure)

    def add(self, other: "Tally") -> None:
        self.nodes += other.nodes
        self.failures += other.failures
        self.buckets += other.buckets
        self.listed += other.listed[: FAILURES_LISTED_MAX - len(self.listed)]

    def percentile_ms(self, percent: float) -> float | None:
        """The latency that `percent` of the answered requests did not exceed; None when none was answered."""
        rank = math.ceil(self.buckets.total() * percent / 100)
        seen = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= rank:
                return round(1000 * upper_bound_s(index), 3)
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "nodes": dict(sorted(self.nodes.items())),
            "failures": dict(sorted(self.failures.items())),
            "p50_ms": self.percentile_ms(50),
            "p99_ms": self.percentile_ms(99),
            "listed": [[round(failure.started_s, 4), failure.kind] for failure in self.listed],
            "buckets": {str(index): count for index, count in sorted(self.buckets.items())},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Tally":
        return cls(
            nodes=Counter(record["nodes"]),
            failures=Counter(record["failures"]),
            listed=[Failure(*pair) for pair in record["listed"]],
            buckets=Counter({int(index): count for index, count in record["buckets"].items()}),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened per endpoint in the `interval_s` before `at_s` (monotonic); `final`: in the whole run."""

    at_s: float
    interval_s: float
    endpoints: Mapping[str, Tally]
    final: bool = False

    @property
    def total(self) -> Tally:
        return sum_of(self.endpoints.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "at_s": round(self.at_s, 4),
            "interval_s": round(self.interval_s, 4),
            "final": self.final,
            "endpoints": {endpoint: tally.to_json() for endpoint, tally in self.endpoints.items()},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Sample":
        endpoints = {endpoint: Tally.from_json(tally) for endpoint, tally in record["endpoints"].items()}
        return cls(record["at_s"], record["interval_s"], endpoints, record["final"])


def sum_of(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def bucket(latency_s: float) -> int:
    """The bucket of a latency; microseconds are fine enough."""
    return math.ceil(BUCKETS_PER_DOUBLING * math.log2(max(latency_s * 1e6, 1)))


def upper_bound_s(index: int) -> float:
    return float(2 ** (index / BUCKETS_PER_DOUBLING)) / 1e6
