"""Waits that are bounded and say what they wait for."""

import time
from collections.abc import Callable


def until(missing: Callable[[], str | None], within_s: float) -> float:
    """Wait until nothing is missing; returns the seconds it took, and fails with what still is."""
    began = time.monotonic()
    while (what := missing()) is not None:
        assert time.monotonic() - began <= within_s, f"after {within_s} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - began
