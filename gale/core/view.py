"""The forwarding view: the part of a committed state that the kernel's maps must hold.

Two load balancers at the same applied index have equal views, whatever their interfaces and their
neighbours' MAC addresses are: those belong to the adapter that writes the maps (gale/dataplane/).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

NO_NODE = 0
"""The owner of a slot while no node routes. Node numbers start at 1."""


class Addresses(NamedTuple):
    """Where a node is reached: its IPv4 address in dotted form, and its IPv6 address, empty when it has none."""

    address: str
    address6: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What the maps should hold.

    generation  number of this view; grows by one with every committed change to it
    nodes       node number (1..65535) -> addresses of each node that may receive packets: routing or draining
    slots       service name -> owner of every slot: unsigned 16-bit node numbers in host byte order
    """

    generation: int = 0
    nodes: Mapping[int, Addresses] = field(default_factory=lambda: MappingProxyType({}))
    slots: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))

    def only(self, services: Iterable[str]) -> "View":
        """The part that concerns these services: a load balancer may lack one that the reference has."""
        wanted = set(services)
        return replace(self, slots={name: owners for name, owners in self.slots.items() if name in wanted})

    def owners(self, service: str) -> frozenset[int]:
        """The node numbers that own at least one slot of the service."""
        return frozenset(memoryview(self.slots.get(service, b"")).cast("H")) - {NO_NODE}
