"""The clock that commands carry."""

import time

import pytest

from gale.clock import SystemClock


def test_a_clock_that_is_set_later_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    assert abs(clock.wall_ms() - time.time_ns() // 1_000_000) < 1_000
    before = clock.wall_ms()
    really = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: really + 300_000_000_000)
    assert 0 <= clock.wall_ms() - before < 1_000
    assert SystemClock().wall_ms() - before >= 300_000
