"""What a load balancer has been told, in the words of the tests: the ground on which the model decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from tests.packet.oracle.moves import Moves


@dataclass(frozen=True, eq=False)
class Listener:
    """`address` as it stands in packets, 4 or 16 bytes; `protocol` by its number; `tunnel` 4 or 6."""

    service: str
    address: bytes
    port: int
    protocol: int
    mode: str
    target_port: int
    tunnel: int = 4


@dataclass(frozen=True)
class Hop:
    """`macs`: the next hop's, then the load balancer's own; empty: not known. `vlan`: 0: none."""

    macs: bytes
    vlan: int = 0
    mtu: int = 1500
    on_link: bool = True

    @property
    def tags(self) -> bytes:
        return b"\x81\x00" + self.vlan.to_bytes(2, "big") if self.vlan else b""


@dataclass(frozen=True)
class Node:
    """Without an address of a version, that address and hop are empty. `birth` tells nodes of one number apart."""

    address: bytes
    address6: bytes
    hop4: Hop
    hop6: Hop
    birth: int = 1


@dataclass
class World:
    """`slots`: the owners of each service's slots, 0 where there is none. `source6` may be empty."""

    listeners: Sequence[Listener]
    source: bytes
    source6: bytes
    nodes: dict[int, Node] = field(default_factory=dict)
    slots: dict[str, Sequence[int]] = field(default_factory=dict)
    moves: Moves = field(default_factory=Moves)
    _last: dict[int, Node] = field(default_factory=dict)

    def set_node(self, number: int, node: Node) -> None:
        """A number that goes to other addresses stands for another node, even if it had been gone."""
        before = self._last.get(number)
        if before:
            same = (before.address, before.address6) == (node.address, node.address6)
            node = replace(node, birth=before.birth + (not same))
        self.nodes[number] = self._last[number] = node

    def set_slots(self, service: str, owners: Sequence[int]) -> None:
        self.moves.seen(service, self.slots[service], owners)
        self.slots[service] = owners

    def born(self, number: int) -> tuple[int, int] | None:
        """The node that has the number now, so that another one that gets it is not taken for it."""
        node = self.nodes.get(number)
        return (number, node.birth) if node else None

    def by_destination(self) -> Mapping[tuple[bytes, int, int], Listener]:
        return {(entry.address, entry.port, entry.protocol): entry for entry in self.listeners}


def packed(address: str) -> bytes:
    """Nothing for nothing."""
    return ip_address(address).packed if address else b""
