"""Waits that are bounded and say what they wait for."""

import time
from collections.abc import Callable

STARTS_WITHIN_S = 60.0
"""A program that was started, until it answers. That is bounded where it is measured, and nowhere else: a busy machine
takes its time to compile for three of them."""


def until(missing: Callable[[], str | None], within_s: float) -> float:
    """Wait until nothing is missing; returns the seconds it took, and fails with what still is."""
    began = time.monotonic()
    while (what := missing()) is not None:
        assert time.monotonic() - began <= within_s, f"after {within_s} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - began
