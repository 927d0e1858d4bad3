"""What two readings of the counters amount to: what was counted until the later one, and how much of it a second.

A load balancer tells with each reading when it made it, by its own clock. One that has started anew counts from zero:
where anything is less than in the reading before, there are no rates.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Part = Mapping[str, Any]
"""One load balancer's reading, as gale.rpc.plain.parts_plain gives it."""

PACKETS = "packets"
KINDS = ("verdicts", "services", "nodes")


def with_rates(before: Sequence[Part], now: Sequence[Part]) -> list[dict[str, Any]]:
    """The readings of `now`, with `per_s` beside the counts: None where there is nothing to compare with."""
    earlier = {part["address"]: _counts(part) for part in before if not part["error"]}
    times_ms = {part["address"]: part["time_ms"] for part in before}
    told = []
    for part in now:
        address, counts = part["address"], _counts(part)
        old = earlier.get(address, {})
        elapsed_s = (part["time_ms"] - times_ms[address]) / 1_000 if address in earlier else 0.0
        anew = any(counts.get(place, {}).get(key, 0) < n for place, row in old.items() for key, n in row.items())
        rated: dict[str, Any] = {kind: {} for kind in KINDS}
        for place, row in counts.items():
            kind, name = place
            rate = None if anew or elapsed_s <= 0 else _rate(old.get(place, {}), row, elapsed_s)
            rated[kind][name] = {**row, "per_s": rate}
        told.append({"address": address, "error": part["error"], "seconds": elapsed_s or None, **rated})
    return told


def _counts(part: Part) -> dict[tuple[str, str], Mapping[str, int]]:
    """(kind, name) -> what is counted there."""
    verdicts = {name: {PACKETS: count} for name, count in part["verdicts"].items()}
    rows = {"verdicts": verdicts, "services": part["services"], "nodes": part["nodes"]}
    return {(kind, name): row for kind in KINDS for name, row in rows[kind].items()}


def _rate(before: Mapping[str, int], now: Mapping[str, int], elapsed_s: float) -> dict[str, float]:
    return {key: round((count - before.get(key, 0)) / elapsed_s, 1) for key, count in now.items()}


def summed(parts: Sequence[Part], kind: str) -> dict[str, dict[str, Any]]:
    """All load balancers together. A sum of which one part has no rate has none."""
    counts: dict[str, Counter[str]] = {}
    rates: dict[str, Counter[str] | None] = {}
    for part in parts:
        for name, counted in part[kind].items():
            per_s = counted["per_s"]
            counts.setdefault(name, Counter()).update({key: n for key, n in counted.items() if key != "per_s"})
            rates.setdefault(name, Counter())
            rate = rates[name]
            if rate is None or per_s is None:
                rates[name] = None
            else:
                rate.update(per_s)
    return {name: {**count, "per_s": rates[name]} for name, count in sorted(counts.items())}
