"""What the figures of a demo mean: shares, failures in words, and which failures nobody had announced. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gale.lab.tally import Failure, Sample


@dataclass(frozen=True, slots=True)
class Window:
    """When requests may fail: those that began between two monotonic times.

    `endpoint`: only those through one load balancer. `at_most`: only so many.
    """

    begin_s: float
    end_s: float
    endpoint: str | None = None
    at_most: float = math.inf

    def covers(self, endpoint: str, failure: Failure) -> bool:
        return self.begin_s <= failure.started_s <= self.end_s and self.endpoint in (None, endpoint)


def unannounced(samples: Iterable[Sample], windows: Sequence[Window]) -> list[Failure]:
    """The failures that no window allows, in the order in which their requests began."""
    found = [
        (endpoint, failure)
        for sample in samples
        for endpoint, tally in sample.endpoints.items()
        for failure in tally.listed
    ]
    left = [window.at_most for window in windows]
    surprises = []
    for endpoint, failure in sorted(found, key=lambda pair: pair[1].started_s):
        allowed = [n for n, window in enumerate(windows) if window.covers(endpoint, failure) and left[n] > 0]
        if allowed:
            left[allowed[0]] -= 1
        else:
            surprises.append(failure)
    return surprises


def shares(nodes: Mapping[str, int]) -> str:
    """ "node-0 34 %, node-1 66 %" """
    total = sum(nodes.values()) or 1
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in sorted(nodes.items()))


def kinds(counted: Mapping[str, int]) -> str:
    """ "36 refused, 2 reset", the most frequent first, or "none" """
    return ", ".join(f"{count} {kind}" for kind, count in Counter(counted).most_common()) or "none"
