"""The cast of the packet tests, and the frames they send: each as it is on the wire on one side of the load balancer.

CLIENT ── ROUTER ── public │ load balancer │ private ── NODE_A, NODE_B

Everybody has an address of both IP versions, and goes by the IPv4 one.
"""

import difflib
from dataclasses import dataclass
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6Unknown, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

CLIENT = "198.51.100.7"
NEIGHBOUR = "198.51.100.8"
"""Another client."""
VIP = "192.0.2.80"
SECOND_VIP = "192.0.2.81"
"""Of the same service, on the same port."""
NOT_A_VIP = "192.0.2.99"
SOURCE = "10.0.0.1"
"""The load balancer's own address on the private side."""
NODE_A = "10.0.0.11"
NODE_B = "10.0.0.12"
NODE_C = "10.0.0.13"
"""A node whose MAC address is not known."""
ROUTER = "203.0.113.1"
"""Somewhere on the way: it reports errors."""

SIX = {
    CLIENT: "2001:db8:c::7",
    NEIGHBOUR: "2001:db8:c::8",
    VIP: "2001:db8:5::80",
    SECOND_VIP: "2001:db8:5::81",
    NOT_A_VIP: "2001:db8:5::99",
    SOURCE: "2001:db8:1::1",
    NODE_A: "2001:db8:1::11",
    NODE_B: "2001:db8:1::12",
    NODE_C: "2001:db8:1::13",
    ROUTER: "2001:db8:9::1",
}


def six(who: str) -> str:
    """Of anybody."""
    return who if ":" in who else SIX.get(who, f"2001:db8:ffff::{who}")


WEB = 80
WEB_ON_NODES = 8080
TLS = 443
"""The port of a second service, the same on its nodes."""
SPORT = 40000
"""The client's port."""

ROUTER_MAC = "02:00:00:00:01:01"
PUBLIC_MAC = "02:00:00:00:01:02"
PRIVATE_MAC = "02:00:00:00:02:01"
NODE_MACS = {NODE_A: "02:00:00:00:02:11", NODE_B: "02:00:00:00:02:12"}

ETHERNET, IPV4, IPV4_AND_TCP = 14, 34, 54
"""Lengths of headers."""
HEADER = {4: 20, 6: 40}
"""Of IP, by its version."""


@dataclass(frozen=True)
class Talk:
    """Frames of one IP version and transport protocol. Of UDP the flags say nothing.

    `between`: what stands between the headers of IP and transport. `tags`: of VLANs. Other fields are those of the IP
    header, by IPv4's names. A client acknowledges what the node has chosen: the sequence number 0.
    """

    version: int = 4
    protocol: str = "tcp"

    @property
    def tcp(self) -> bool:
        return self.protocol == "tcp"

    @property
    def number(self) -> int:
        return 6 if self.tcp else 17

    def address(self, who: str) -> str:
        return six(who) if self.version == 6 else who

    def ip(self, source: str, destination: str, **fields: Any) -> Packet:
        if self.version == 4:
            return IP(src=source, dst=destination, **fields)
        fields.pop("id", None)
        if "ttl" in fields:
            fields["hlim"] = fields.pop("ttl")
        return IPv6(src=self.address(source), dst=self.address(destination), fl=5, **fields)

    def transport(self, flags: str, sport: int, dport: int, ack: int = 1, seq: int = 0) -> Packet:
        if self.tcp:
            return TCP(sport=sport, dport=dport, flags=flags, ack=ack, seq=seq)
        return UDP(sport=sport, dport=dport)

    def frame(
        self,
        macs: tuple[str, str],
        ends: tuple[str, str],
        segment: Packet,
        payload: bytes = b"",
        tags: tuple[Packet, ...] = (),
        between: Packet | None = None,
        **fields: Any,
    ) -> Packet:
        frame = Ether(src=macs[0], dst=macs[1])
        for layer in (*tags, self.ip(*ends, **fields), *([between] if between else []), segment):
            frame = frame / layer.copy()
        return frame / payload if payload else frame

    def from_client(
        self,
        flags: str = "A",
        *,
        client: str = CLIENT,
        sport: int = SPORT,
        to: str = VIP,
        dport: int = WEB,
        **more: Any,
    ) -> Packet:
        """As it arrives on the public side."""
        segment = self.transport(flags, sport, dport, more.pop("ack", 1), more.pop("seq", 0))
        return self.frame((ROUTER_MAC, PUBLIC_MAC), (client, to), segment, **{"ttl": 64, **more})

    def to_node(
        self, flags: str = "A", *, node: str = NODE_A, sport: int = SPORT, dport: int = WEB_ON_NODES, **more: Any
    ) -> Packet:
        """As it leaves on the private side."""
        segment = self.transport(flags, sport, dport, more.pop("ack", 1), more.pop("seq", 0))
        return self.frame((PRIVATE_MAC, NODE_MACS[node]), (SOURCE, node), segment, **{"ttl": 63, **more})

    def from_node(
        self,
        flags: str = "A",
        *,
        node: str = NODE_A,
        sport: int = WEB_ON_NODES,
        to: str = SOURCE,
        dport: int = SPORT,
        **more: Any,
    ) -> Packet:
        """As it arrives on the private side."""
        segment = self.transport(flags, sport, dport, more.pop("ack", 1), more.pop("seq", 0))
        return self.frame((NODE_MACS[node], PRIVATE_MAC), (node, to), segment, **{"ttl": 64, **more})

    def to_client(
        self,
        flags: str = "A",
        *,
        client: str = CLIENT,
        source: str = VIP,
        sport: int = WEB,
        dport: int = SPORT,
        **more: Any,
    ) -> Packet:
        """As it leaves on the public side."""
        segment = self.transport(flags, sport, dport, more.pop("ack", 1), more.pop("seq", 0))
        return self.frame((PUBLIC_MAC, ROUTER_MAC), (source, client), segment, **{"ttl": 63, **more})

    def fragments(self, packet: Packet, cut: int = 24) -> tuple[Packet, Packet]:
        """A packet in two: the first with the transport header and `cut` bytes in all, and the rest."""
        layer = packet[IP if self.version == 4 else IPv6]
        data = bytes(layer.payload)
        start = packet.copy()
        start[type(layer)].remove_payload()
        first, last = start.copy(), start.copy()
        if self.version == 4:
            number = IP(bytes(layer)).proto
            first[IP].setfieldval("flags", "MF")
            last[IP].setfieldval("frag", cut // 8)
            first[IP].setfieldval("proto", number)
            last[IP].setfieldval("proto", number)
        else:
            number = IPv6(bytes(layer)).nh
            first = first / IPv6ExtHdrFragment(nh=number, m=1, offset=0, id=9)
            last = last / IPv6ExtHdrFragment(nh=number, m=0, offset=cut // 8, id=9)
        return first / Raw(data[:cut]), last / Raw(data[cut:])

    def error(
        self,
        macs: tuple[str, str],
        ends: tuple[str, str],
        quoted: Packet | bytes,
        kind: tuple[int, int] = (3, 4),
        rest: int = 1400,
        **fields: Any,
    ) -> Packet:
        """ICMP or ICMPv6 with a type, a code, the four bytes behind them, and what is quoted of a packet."""
        code = {"type": kind[0], "code": kind[1]}
        if self.version == 4:
            header = ICMP(**code, unused=rest) if kind[0] != 3 else ICMP(**code, reserved=0, length=0, nexthopmtu=rest)
            return self.frame(macs, ends, header / Raw(bytes(quoted)), **fields)
        body = Raw(bytes(quoted))
        return self.frame(macs, ends, ICMPv6Unknown(**code, msgbody=rest.to_bytes(4, "big") + bytes(body)), **fields)


TALK = Talk()
from_client, to_node, from_node, to_client = TALK.from_client, TALK.to_node, TALK.from_node, TALK.to_client

TALKS = tuple(Talk(version, protocol) for version in (4, 6) for protocol in ("tcp", "udp"))


def talk_name(talk: Talk) -> str:
    return f"{talk.protocol}{talk.version}"


def packet_of(frame: Packet) -> Packet:
    """What is behind the Ethernet header and the VLAN tags."""
    return frame[IP] if IP in frame and not frame.haslayer(IPv6) else frame[IPv6]


def difference(got: bytes, expected: bytes) -> str:
    """Two frames layer by layer, with a mark at each field that differs; empty if they are equal."""
    if got == expected:
        return ""
    return "\n".join(["- expected, + got", *difflib.ndiff(_layers(expected), _layers(got))])


def _layers(frame: bytes) -> list[str]:
    return [*Ether(frame).show(dump=True).splitlines(), f"{len(frame)} bytes"]
