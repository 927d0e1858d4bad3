"""How much one address may ask for, so that no node or operator, broken or hostile, takes the loop from the others.

What is too fast is slowed down, not refused: the next message is not read, HTTP/2 stops granting room, and the sender
waits. What is too much at once is refused, because waiting calls cost memory.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one port. `calls_per_s`: begun by one address, with `burst` at once; `open_per_source`, `open_in_all`: calls
    that are under way, a node's stream of checks among them; `connections`: in all."""

    calls_per_s: float
    burst: int
    open_per_source: int
    open_in_all: int
    connections: int


NODE_LIMITS = Limits(calls_per_s=10, burst=50, open_per_source=16, open_in_all=20_000, connections=20_000)
API_LIMITS = Limits(calls_per_s=200, burst=400, open_per_source=64, open_in_all=256, connections=1_000)
# A node sends three checks within checks_timeout, which is a second at least, and one at each change of its service.
CHECKS_PER_S = 10.0
CHECKS_BURST = 20
SOURCES_KEPT = 20_000


class Pace:
    """At most `burst` at once, and `per_s` on average."""

    __slots__ = ("_burst_s", "_each_s", "_free_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self._each_s = 1.0 / per_s
        self._burst_s = (burst - 1) / per_s
        self._free_s = float("-inf")  # when one would be due if they came evenly

    def delay_s(self, now_s: float) -> float:
        """Take one; how long it has to wait first."""
        due_s = max(self._free_s, now_s - self._burst_s)
        self._free_s = due_s + self._each_s
        return max(0.0, due_s - now_s)

    def rested(self, now_s: float) -> bool:
        """Whether it is as good as new."""
        return self._free_s <= now_s - self._burst_s


class Source:
    """What one address has under way, and how fast it calls."""

    __slots__ = ("open", "pace")

    def __init__(self, limits: Limits) -> None:
        self.open = 0
        self.pace = Pace(limits.calls_per_s, limits.burst)


class Sources:
    """Every address that calls one port."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sources: dict[str, Source] = {}
        self._open = 0

    def enter(self, address: str, now_s: float) -> float:
        """A call begins; how long it has to wait first. Raises ValueError, which says why, when it is one too many."""
        if self._open >= self._limits.open_in_all:
            raise ValueError(f"{self._open} calls are under way, more are not taken")
        source = self._sources.get(address)
        if source is None:
            self._forget_the_quiet(now_s)
            source = self._sources[address] = Source(self._limits)
        if source.open >= self._limits.open_per_source:
            raise ValueError(f"{source.open} calls of {address} are under way, more are not taken")
        source.open += 1
        self._open += 1
        return source.pace.delay_s(now_s)

    def leave(self, address: str) -> None:
        """A call that entered has ended."""
        self._sources[address].open -= 1
        self._open -= 1

    def _forget_the_quiet(self, now_s: float) -> None:
        if len(self._sources) >= SOURCES_KEPT:
            self._sources = {a: s for a, s in self._sources.items() if s.open or not s.pace.rested(now_s)}
