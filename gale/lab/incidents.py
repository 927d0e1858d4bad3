"""What the figures of a demo mean: shares, failures in words, and which failures nobody had announced. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gale.lab.tally import Failure, Sample


@dataclass(frozen=True, slots=True)
class Window:
    """When requests may fail: those that began between two monotonic times."""

    begin_s: float
    end_s: float

    def covers(self, failure: Failure) -> bool:
        return self.begin_s <= failure.started_s <= self.end_s


def unannounced(samples: Iterable[Sample], windows: Sequence[Window]) -> list[Failure]:
    """The failures that no window allows, in the order in which their requests began."""
    found = [failure for sample in samples for tally in sample.endpoints.values() for failure in tally.listed]
    surprises = [failure for failure in found if not any(window.covers(failure) for window in windows)]
    return sorted(surprises, key=lambda failure: failure.started_s)


def shares(nodes: Mapping[str, int]) -> str:
    """ "node-0 34 %, node-1 66 %" """
    total = sum(nodes.values()) or 1
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in sorted(nodes.items()))


def kinds(counted: Mapping[str, int]) -> str:
    """ "36 refused, 2 reset", the most frequent first, or "none" """
    return ", ".join(f"{count} {kind}" for kind, count in Counter(counted).most_common()) or "none"
