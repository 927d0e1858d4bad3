"""The cast of the packet tests, and the frames they send: each as it is on the wire on one side of the load balancer.

CLIENT ── ROUTER ── public │ load balancer │ private ── NODE_A, NODE_B
"""

import difflib
from typing import Any

from scapy.layers.inet import IP, TCP
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


def from_client(
    flags: str = "A",
    *,
    client: str = CLIENT,
    sport: int = SPORT,
    to: str = VIP,
    dport: int = WEB,
    payload: bytes = b"",
    **ip: Any,
) -> Packet:
    """As it arrives on the public side."""
    ethernet = Ether(src=ROUTER_MAC, dst=PUBLIC_MAC)
    return ethernet / IP(src=client, dst=to, **{"ttl": 64, **ip}) / TCP(sport=sport, dport=dport, flags=flags) / payload


def to_node(
    flags: str = "A",
    *,
    node: str = NODE_A,
    sport: int = SPORT,
    dport: int = WEB_ON_NODES,
    payload: bytes = b"",
    **ip: Any,
) -> Packet:
    """As it leaves on the private side."""
    ethernet = Ether(src=PRIVATE_MAC, dst=NODE_MACS[node])
    return (
        ethernet / IP(src=SOURCE, dst=node, **{"ttl": 63, **ip}) / TCP(sport=sport, dport=dport, flags=flags) / payload
    )


def from_node(
    flags: str = "A",
    *,
    node: str = NODE_A,
    sport: int = WEB_ON_NODES,
    to: str = SOURCE,
    dport: int = SPORT,
    payload: bytes = b"",
    **ip: Any,
) -> Packet:
    """As it arrives on the private side."""
    ethernet = Ether(src=NODE_MACS[node], dst=PRIVATE_MAC)
    return ethernet / IP(src=node, dst=to, **{"ttl": 64, **ip}) / TCP(sport=sport, dport=dport, flags=flags) / payload


def to_client(
    flags: str = "A",
    *,
    client: str = CLIENT,
    source: str = VIP,
    sport: int = WEB,
    dport: int = SPORT,
    payload: bytes = b"",
    **ip: Any,
) -> Packet:
    """As it leaves on the public side."""
    ethernet = Ether(src=PUBLIC_MAC, dst=ROUTER_MAC)
    return (
        ethernet
        / IP(src=source, dst=client, **{"ttl": 63, **ip})
        / TCP(sport=sport, dport=dport, flags=flags)
        / payload
    )


def difference(got: bytes, expected: bytes) -> str:
    """Two frames layer by layer, with a mark at each field that differs; empty if they are equal."""
    if got == expected:
        return ""
    return "\n".join(["- expected, + got", *difflib.ndiff(_layers(expected), _layers(got))])


def _layers(frame: bytes) -> list[str]:
    return [*Ether(frame).show(dump=True).splitlines(), f"{len(frame)} bytes"]


def payload_of(frame: bytes) -> bytes:
    packet = Ether(frame)
    return bytes(packet[Raw].load) if Raw in packet else b""
