"""This machine's clocks, as gale.ports.Clock."""

import time


class SystemClock:
    """The time of day is looked at once, at the start, and carried on by the monotonic clock: to set the machine's
    clock later moves no end of a ban."""

    def __init__(self) -> None:
        self._offset_ms = time.time_ns() // 1_000_000 - self.monotonic_ms()

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return self._offset_ms + self.monotonic_ms()
