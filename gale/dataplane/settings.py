"""What the data plane of one load balancer is built for. All of it is compiled in: a change needs a new start."""

import socket
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address

from gale.dataplane.address import version
from gale.errors import DataplaneError

LISTENERS_MAX = 255
"""LISTENERS of bpf/abi.h, less number 0, which is none."""

LISTENERS_PER_PORT = 64
"""Length of the chain that bpf/service.h walks: listeners that share a port, and differ in address or protocol."""

FLOWS_MAX = 1 << 24
"""Four gigabytes of flow tables."""

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
MODES = {"l2": 2, "l3": 3, "l4": 4}
"""enum mode of bpf/abi.h."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One address, port and protocol that clients send to; a service may have several.

    service      name of the service whose slots choose the node
    address      IPv4 or IPv6, as text
    port         what clients send to
    protocol     "tcp" or "udp"
    target_port  the port on the nodes: l4
    mode         "l2": the node gets the frame; "l3": the node gets the packet in a tunnel; "l4": addresses are changed
    tunnel       IP version of the tunnel's outer header, 4 or 6: l3
    """

    service: str
    address: str
    port: int
    protocol: str
    target_port: int
    mode: str = "l4"
    tunnel: int = 4


@dataclass(frozen=True, slots=True)
class DataplaneSettings:
    """Raises DataplaneError when the listeners cannot be told apart or a size does not fit the maps.

    public_interface   where clients' packets arrive and answers leave
    private_interface  where nodes' packets arrive; may be the same ("one-arm")
    source_address     this load balancer's own IPv4 address, which nodes see as the client's
    source_address6    likewise IPv6; None if it has none
    slots              of each service: a power of two
    flows              known at a time in l4, a power of two; the least valuable make room for new ones
    learning_s         after a slot of l2 or l3 has moved: so long a connection that nobody knows is the earlier owner's
    """

    public_interface: str
    private_interface: str
    source_address: str
    source_address6: str | None
    listeners: tuple[Listener, ...]
    slots: int
    flows: int = 1 << 18
    learning_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.listeners:
            raise DataplaneError("no listeners: at least one service with an address and a port is needed")
        if len(self.listeners) > LISTENERS_MAX:
            raise DataplaneError(f"{len(self.listeners)} listeners: at most {LISTENERS_MAX} are possible")
        for listener in self.listeners:
            self._require(listener)
        self._require_distinct()
        for name, number, most in (("slots", self.slots, 1 << 20), ("flows", self.flows, FLOWS_MAX)):
            if not 1 <= number <= most or number & (number - 1):
                raise DataplaneError(f"{number} {name}: must be a power of two, at most {most}")

    def _require(self, listener: Listener) -> None:
        """What is possible for one listener, whatever the others are."""
        rules = (
            ("protocol", listener.protocol, tuple(PROTOCOLS)),
            ("mode", listener.mode, tuple(MODES)),
            ("tunnel", listener.tunnel, (4, 6)),
        )
        for key, value, possible in rules:
            if value not in possible:
                right = " or ".join(map(repr, possible))
                raise DataplaneError(f"service {listener.service}: {key} {value!r}: must be {right}")
        try:
            ip_address(listener.address)
        except ValueError as error:
            raise DataplaneError(f"service {listener.service}: {error}") from error
        if listener.mode == "l4" and version(listener.address) == 6 and not self.source_address6:
            raise DataplaneError(
                f"service {listener.service}: {listener.address} in mode l4 needs an IPv6 address on"
                f" {self.private_interface}, for nodes to answer to: give it one, or use l2 or l3"
            )

    def _require_distinct(self) -> None:
        where = Counter((listener.address, listener.port, listener.protocol) for listener in self.listeners)
        for (address, port, protocol), times in where.items():
            if times > 1:
                raise DataplaneError(
                    f"{address} port {port}/{protocol} is listened to {times} times: a destination has one service"
                )
        for port, times in Counter(port for _, port, _ in where).items():
            if times > LISTENERS_PER_PORT:
                raise DataplaneError(f"{times} listeners share port {port}: at most {LISTENERS_PER_PORT} may")

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services, in the order that numbers them."""
        return tuple(dict.fromkeys(listener.service for listener in self.listeners))

    @property
    def has_l4(self) -> bool:
        """Whether answers come back through this machine."""
        return any(listener.mode == "l4" for listener in self.listeners)
