"""How a node is reached: the kernel's route to it, and the MAC address of the next hop.

The packet path does not ask the kernel about neighbours, so their MAC addresses are copied into the map of nodes. Two
things follow. Nobody else makes the kernel look for a neighbour that only forwarded packets need: `resolve` asks it to,
and the answer is there the next time. And nobody else makes it verify one it has known for a while: `resolve` does that
too, for every neighbour the kernel is not sure of.

A route through a VLAN's interface leads out of the interface below it, with the VLAN's tag: XDP hands frames to
drivers, and a VLAN has none.
"""

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from socket import AF_INET, AF_INET6

from gale.dataplane.address import plain
from gale.dataplane.links import Features, Link, link_facts
from gale.dataplane.rtnetlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Answer,
    Conversation,
    Question,
    attributes,
    number,
)
from gale.errors import DataplaneError
from gale.ports import Reached

# linux/rtnetlink.h
_RTM_GETROUTE, _RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 26, 28, 29, 30
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA = 1, 4, 5, 8, 18
_RTAX_MTU = 2
_RTN_UNICAST = 1
_NDA_DST, _NDA_LLADDR = 1, 2
_ROUTE = struct.Struct("=BB5xB4x")  # struct rtmsg: family, length of the destination in bits, type
_NEIGHBOUR = struct.Struct("=BxxxiHBx")  # struct ndmsg: family, interface, state, flags

# linux/neighbour.h
_NUD_REACHABLE = 0x02
_NUD_STALE = 0x04
_NUD_DELAY = 0x08
_NUD_PROBE = 0x10
_NUD_NOARP = 0x40
_NUD_PERMANENT = 0x80
MAC_KNOWN = _NUD_REACHABLE | _NUD_STALE | _NUD_DELAY | _NUD_PROBE | _NUD_PERMANENT
_CERTAIN = _NUD_REACHABLE | _NUD_PERMANENT
_NTF_USE = 0x01

_FAMILIES = {4: AF_INET, 16: AF_INET6}  # by the length of an address
_MAC_SIZE = 6

Neighbour = tuple[int, bytes]
"""Where the kernel keeps a next hop: the interface of the route, and the address."""


@dataclass(frozen=True, slots=True)
class Way:
    """How one address is reached, or the trouble with it.

    neighbour      the next hop
    out            the interface frames leave by
    interface_mac  their source
    mac            their destination; None while the kernel does not know it
    vlan           the VLAN they leave in, 0: none
    mtu            bytes of the largest IP packet
    on_link        the next hop is the node itself, no router
    trouble        why nothing can be sent that way; empty if it can, or will once the MAC address is known
    """

    neighbour: Neighbour = (0, b"")
    out: int = 0
    interface: str = ""
    interface_mac: bytes = b""
    mac: bytes | None = None
    vlan: int = 0
    mtu: int = 0
    on_link: bool = False
    trouble: str = ""

    @property
    def open(self) -> bool:
        return self.mac is not None and not self.trouble

    def __str__(self) -> str:
        if self.trouble:
            return self.trouble
        through = "directly" if self.on_link else f"through {ip_address(self.neighbour[1])}"
        at = self.mac.hex(":") if self.mac else "an unknown MAC address"
        vlan = f", VLAN {self.vlan}" if self.vlan else ""
        return f"{through} at {at}, out of {self.interface}{vlan}, MTU {self.mtu}"


def told(address: str, way: Way) -> Reached:
    """The way to an address, in words."""
    if way.trouble:
        return Reached(address, way.trouble)
    return Reached(
        address,
        "" if way.mac else "an unknown MAC address",
        way.interface,
        way.mac.hex(":") if way.mac else "",
        "" if way.on_link else str(ip_address(way.neighbour[1])),
        way.vlan,
        way.mtu,
    )


@dataclass(frozen=True, slots=True)
class _Route:
    """`hop`: address of the next hop; `mtu`: 0 if the route has none of its own."""

    ifindex: int
    hop: bytes
    mtu: int


class Resolver:
    """Asks the kernel.

    native  set it when frames are handed over by XDP in the driver, which not every interface takes
    full    the kernel had no room for another neighbour, when it was last asked to look for one
    """

    def __init__(self) -> None:
        self._kernel = Conversation()
        self._features = Features()
        self._links: dict[int, Link | None] = {}
        self.native = False
        self.full = False

    def close(self) -> None:
        self._kernel.close()
        self._features.close()

    def forget_links(self) -> None:
        """What is known of interfaces is asked for again."""
        self._links.clear()

    def link(self, index: int) -> Link | None:
        """None for an interface that is gone."""
        if index not in self._links:
            self._links[index] = link_facts(self._kernel, self._features, [index]).get(index)
        return self._links[index]

    def resolve(self, nodes: Iterable[str]) -> dict[str, Way]:
        """The way to each address. Raises DataplaneError when the kernel does not answer."""
        wanted = list(nodes)
        try:
            routes = dict(zip(wanted, self._routes(wanted), strict=True))
            hops = list(dict.fromkeys((r.ifindex, r.hop) for r in routes.values() if isinstance(r, _Route)))
            macs = dict(zip(hops, self._macs(hops), strict=True))
            return {
                node: self._way(node, route, macs[route.ifindex, route.hop])
                if isinstance(route, _Route)
                else Way(trouble=route)
                for node, route in routes.items()
            }
        except OSError as error:
            raise DataplaneError(f"the kernel does not say how nodes are reached: {error}") from error

    def _routes(self, nodes: list[str]) -> list[_Route | str]:
        questions = []
        for node in nodes:
            address = plain(node)
            head = _ROUTE.pack(_FAMILIES[len(address)], 8 * len(address), 0)
            questions.append(Question(_RTM_GETROUTE, head, {_RTA_DST: address}))
        answers = self._kernel.ask_all(questions)
        return [
            _route(question.attributes[_RTA_DST], answer) for question, answer in zip(questions, answers, strict=True)
        ]

    def _macs(self, hops: list[Neighbour]) -> list[bytes | None]:
        """The MAC addresses of neighbours, where the kernel knows them. It is asked to look for those it is not sure
        of."""
        answers = self._kernel.ask_all([_about(_RTM_GETNEIGH, hop) for hop in hops])
        states = [_state(answer) for answer in answers]
        self._look_for([hop for hop, state in zip(hops, states, strict=True) if not state & _CERTAIN])
        return [
            answer.attributes.get(_NDA_LLADDR) if state & MAC_KNOWN else None
            for answer, state in zip(answers, states, strict=True)
        ]

    def _look_for(self, hops: list[Neighbour]) -> None:
        flags = NLM_F_ACK | NLM_F_REPLACE | NLM_F_CREATE
        asked = self._kernel.ask_all([_about(_RTM_NEWNEIGH, hop, use=_NTF_USE, flags=flags) for hop in hops])
        self.full = any(answer.error == errno.ENOBUFS for answer in asked)

    def look_again(self, neighbours: Iterable[Neighbour]) -> None:
        """What the kernel knows of these is out of date. It would find out within a minute, and is made to look for
        them now; but nothing is done about what an operator has set. Raises DataplaneError."""
        hops = list(neighbours)
        try:
            answers = self._kernel.ask_all([_about(_RTM_GETNEIGH, hop) for hop in hops])
            states = zip(hops, map(_state, answers), strict=True)
            doubtful = [hop for hop, state in states if not state & (_NUD_NOARP | _NUD_PERMANENT)]
            self._kernel.ask_all([_about(_RTM_DELNEIGH, hop, flags=NLM_F_ACK) for hop in doubtful])
            self._look_for(doubtful)
        except OSError as error:
            raise DataplaneError(f"the kernel does not look for neighbours: {error}") from error

    def _way(self, node: str, route: _Route, mac: bytes | None) -> Way:
        link = self.link(route.ifindex)
        out = self.link(link.parent) if link and link.parent else link
        if not link or not out:
            return Way(trouble="its interface is gone")
        return Way(
            neighbour=(route.ifindex, route.hop),
            out=out.index,
            interface=out.name,
            interface_mac=link.mac,
            mac=mac if mac and len(mac) == _MAC_SIZE else None,
            vlan=link.vlan,
            mtu=min(route.mtu or link.mtu, link.mtu),
            on_link=route.hop == plain(node),
            trouble=self.trouble(link, out),
        )

    def trouble(self, link: Link, out: Link) -> str:
        """Why nothing can be sent by the interface of a route, and out of another; empty if it can."""
        if not link.up or not out.up:
            return f"{link.name if out.up else out.name} is down"
        if len(link.mac) != _MAC_SIZE:
            return f"{link.name} is no Ethernet interface"
        if link.vlan < 0 or out.parent:
            return f"{link.name}: only VLANs of 802.1Q directly on an interface are supported"
        if self.native and out.takes is False:
            return f"{out.name} takes no frames from XDP: of a veth, the peer needs GRO (ethtool -K PEER gro on)"
        return ""


def _about(kind: int, hop: Neighbour, *, use: int = 0, flags: int = 0) -> Question:
    ifindex, address = hop
    head = _NEIGHBOUR.pack(_FAMILIES[len(address)], ifindex, 0, use)
    return Question(kind, head, {_NDA_DST: address}, flags)


def _state(answer: Answer) -> int:
    return int(_NEIGHBOUR.unpack(answer.head)[2]) if answer.head else 0


def _route(address: bytes, answer: Answer) -> _Route | str:
    """Or why there is none."""
    found = answer.attributes
    if answer.error or _RTA_OIF not in found:
        return "there is no route"
    if _ROUTE.unpack(answer.head)[2] != _RTN_UNICAST:
        return "the route does not lead to another machine"
    via = found.get(_RTA_VIA, b"")[2:]  # of another IP version: its address family comes first
    mtu = attributes(found.get(_RTA_METRICS, b"")).get(_RTAX_MTU, b"")
    return _Route(number(found[_RTA_OIF]), found.get(_RTA_GATEWAY) or via or address, number(mtu))
