"""Connections of l2 and l3 in slots that have moved: whose they are, as far as a load balancer can know.

Whoever is not heard of within a minute of a move is taken for new. A lone SYN proves nothing about who sent it; what
goes on where it began does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

LEARNS_S = 60
GOES_ON = 16384
"""Bytes of a client that may be lost before the first one that arrives."""

Key = tuple[bytes, int, bytes, int]
"""Client and service, each with its port."""
Home = tuple[int, int]
"""Number and birth of a node."""


@dataclass
class Connection:
    """`home`: None while nothing but a SYN was seen. `opening`: where that goes on, and at whose."""

    home: Home | None = None
    opening: tuple[int, Home] | None = None


@dataclass
class Moves:
    """Of all services. `first`: whose the connections are that nobody knows, by service and slot, and until when."""

    now_s: float = 0
    first: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    connections: dict[Key, Connection] = field(default_factory=dict)

    def seen(self, service: str, before: Sequence[int], after: Sequence[int]) -> None:
        """The slots of a service have other owners now."""
        for slot, (was, owner) in enumerate(zip(before, after, strict=True)):
            _, until_s = self.first.get((service, slot), (0, self.now_s))
            if was and was != owner and until_s <= self.now_s:
                self.first[service, slot] = was, self.now_s + LEARNS_S

    def unknown_belongs_to(self, service: str, slot: int) -> int:
        """0: to the owner."""
        earlier, until_s = self.first.get((service, slot), (0, 0))
        return earlier if self.now_s < until_s else 0
