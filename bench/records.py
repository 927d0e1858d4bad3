"""Flat records of what was measured again and again: {"case", "contestant", "metric", "unit", "median", "low", "high",
"runs"}. `low` and `high` are the least and the most of all runs."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

Record = dict[str, Any]
DIGITS = 4


class Records:
    """Values by case, contestant and metric, in the order in which these came first."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, str, str], list[float]] = {}

    def add(self, case: str, contestant: str, figures: Mapping[str, tuple[str, float]]) -> None:
        for metric, (unit, value) in figures.items():
            self._values.setdefault((case, contestant, metric, unit), []).append(value)

    def all(self) -> list[Record]:
        return [
            {"case": case, "contestant": contestant, "metric": metric, "unit": unit, **spread(values)}
            for (case, contestant, metric, unit), values in self._values.items()
        ]

    def ratios(self, case: str, metric: str, one: str, other: str) -> Iterator[float]:
        """Round by round, so that both have met the same mood of the machine."""
        for (its_case, contestant, its_metric, unit), values in self._values.items():
            if (its_case, contestant, its_metric) == (case, one, metric):
                others = self._values.get((case, other, metric, unit), [])
                yield from (a / b for a, b in zip(values, others, strict=False))


def spread(values: list[float]) -> Record:
    return {
        "median": rounded(statistics.median(values)),
        "low": rounded(min(values)),
        "high": rounded(max(values)),
        "runs": len(values),
    }


def rounded(value: float) -> float:
    """To four digits that mean something."""
    return float(f"{value:.{DIGITS}g}")
