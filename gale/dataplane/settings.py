"""What the data plane of one load balancer is built for. All of it is compiled in: a change needs a new start."""

from collections import Counter
from dataclasses import dataclass

from gale.errors import DataplaneError

LISTENERS_PER_PORT = 64
"""Length of the chain that bpf/service.h walks: listeners that share a port and differ in their address."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One address and port that clients connect to; a service may have several.

    service      name of the service whose slots choose the node
    address      IPv4 in dotted form
    port         what clients connect to
    protocol     "tcp"
    target_port  the port on the nodes
    """

    service: str
    address: str
    port: int
    protocol: str
    target_port: int


@dataclass(frozen=True, slots=True)
class DataplaneSettings:
    """Raises DataplaneError when the listeners cannot be told apart or a size does not fit the maps.

    public_interface   where clients' packets arrive and answers leave
    private_interface  where nodes' packets arrive
    source_address     this load balancer's own IPv4 address, which nodes see as the client's
    slots              of each service: a power of two
    flows              known at a time; the least recently used make room for new ones
    """

    public_interface: str
    private_interface: str
    source_address: str
    listeners: tuple[Listener, ...]
    slots: int
    flows: int = 1 << 18

    def __post_init__(self) -> None:
        if not self.listeners:
            raise DataplaneError("no listeners: at least one service with an address and a port is needed")
        for listener in self.listeners:
            if listener.protocol != "tcp":
                raise DataplaneError(f"service {listener.service}: protocol {listener.protocol!r}: must be 'tcp'")
        where = Counter((listener.address, listener.port) for listener in self.listeners)
        for (address, port), times in where.items():
            if times > 1:
                raise DataplaneError(f"{address}:{port} is listened to {times} times: a destination has one service")
        for port, times in Counter(port for _, port in where).items():
            if times > LISTENERS_PER_PORT:
                raise DataplaneError(f"{times} addresses listen to port {port}: at most {LISTENERS_PER_PORT} may")
        if self.slots < 1 or self.slots & (self.slots - 1):
            raise DataplaneError(f"{self.slots} slots: must be a power of two")

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services, in the order that numbers them."""
        return tuple(dict.fromkeys(listener.service for listener in self.listeners))
