"""The node's program: which tunnels it takes off, what is left of them, and the segments it lets a node announce."""

from dataclasses import dataclass
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q
from scapy.packet import Packet, Padding, Raw

from tests.packet.tunnels import (
    ANY_SEGMENT,
    BALANCER,
    BALANCER6,
    CLIENT,
    CLIENT6,
    ETHER,
    INSIDE,
    NAMES,
    NODE,
    NODE6,
    SEGMENT,
    SEGMENT6,
    STRANGER,
    STRANGER6,
    TAGS,
    TC_NEXT,
    TUNNELS,
    VIP,
    VIP6,
    XDP_DROP,
    XDP_PASS,
    Node,
    raw,
    same,
    tunnelled,
)


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_a_tunnel_is_taken_off(node: Node, outer: int, inner: int, tags: str) -> None:
    verdict, returned, frame = node.decap(bytes(tunnelled(outer, inner, TAGS[tags])))
    same(frame, TAGS[tags] / INSIDE[inner])
    assert (verdict, returned) == ("decapsulated", XDP_PASS)


@dataclass
class Row:
    """`output` None: the packet leaves as it came."""

    description: str
    packet: Packet | bytes
    verdict: str
    output: Packet | bytes | None = None


def marked(inner: int, ecn: int) -> Packet:
    """The packet inside, with ECN bits."""
    packet = INSIDE[inner].copy()
    packet.setfieldval("tos" if inner == 4 else "tc", ecn)
    return packet


def outer_marked(outer: int, inside: Packet, ecn: int) -> Packet:
    header = TUNNELS[outer].copy()
    header.setfieldval("tos" if outer == 4 else "tc", ecn)
    return ETHER / header / inside


PLAIN = ETHER / INSIDE[4]
FRAGMENT = IP(src=CLIENT, dst=VIP, flags="MF", frag=64) / Raw(b"x" * 64)
ERROR = IP(src=STRANGER, dst=VIP) / ICMP(type=3, code=4) / IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=40000)
CE = 3

ROWS = [
    Row("padding stays behind it", bytes(tunnelled(4, 4)) + bytes(6), "decapsulated", PLAIN / Padding(bytes(6))),
    Row("a fragment inside", ETHER / TUNNELS[4] / FRAGMENT, "decapsulated", ETHER / FRAGMENT),
    Row("an ICMP error inside", ETHER / TUNNELS[4] / ERROR, "decapsulated", ETHER / ERROR),
    Row("the last hop", tunnelled(4, 4, ttl=1), "decapsulated", PLAIN),
    *(
        Row(
            f"congestion, {outer} over {inner}, {ecn}",
            outer_marked(outer, marked(inner, ecn), CE),
            "decapsulated",
            ETHER / marked(inner, CE),
        )
        for outer in (4, 6)
        for inner in (4, 6)
        for ecn in (1, 2, 3)
    ),
    # touched by nobody, and not even counted
    Row("ARP", ETHER / ARP(), ""),
    Row("a service's packet without a tunnel", PLAIN, ""),
    Row("a check's answer", ETHER / IP(src=BALANCER, dst=NODE) / TCP(sport=7070), ""),
    Row("IPv6 TCP", ETHER / IPv6(src=BALANCER6, dst=NODE6) / TCP(), ""),
    Row("a fragment of a tunnel", tunnelled(4, 4, flags="MF"), ""),
    Row("a later fragment of a tunnel", tunnelled(4, 4, flags=0, frag=9), ""),
    Row("options on a tunnel", ETHER / IP(src=BALANCER, dst=NODE, options=b"\1\1\1\1") / INSIDE[4], ""),
    Row("options on an IPv6 tunnel", ETHER / IPv6(src=BALANCER6, dst=NODE6) / IPv6ExtHdrDestOpt() / INSIDE[4], ""),
    Row("three VLANs", ETHER / Dot1Q() / Dot1Q() / Dot1Q() / TUNNELS[4] / INSIDE[4], ""),
    Row("an Ethernet header alone", bytes(tunnelled(4, 4))[:14], ""),
    Row("half a VLAN tag", bytes(tunnelled(4, 4, TAGS["one VLAN"]))[:17], ""),
    Row("half an outer header", bytes(tunnelled(4, 4))[:33], ""),
    Row("half an outer IPv6 header", bytes(tunnelled(6, 4))[:53], ""),
    Row("an outer header of version 5", raw(tunnelled(4, 4), 14, b"\x55"), ""),
    # tunnels of others
    Row("to another node", tunnelled(4, 4, dst=STRANGER), "not_this_node"),
    Row("to another node by IPv6", tunnelled(6, 6, dst=STRANGER6), "not_this_node"),
    Row("from a stranger", tunnelled(4, 4, src=STRANGER), "not_a_load_balancer"),
    Row("from a stranger by IPv6", tunnelled(6, 4, src=STRANGER6), "not_a_load_balancer"),
    Row("from this node", tunnelled(4, 4, src=NODE), "not_a_load_balancer"),
    Row("to the node itself", ETHER / TUNNELS[4] / IP(src=CLIENT, dst=NODE) / TCP(), "not_served"),
    Row("to no service", ETHER / TUNNELS[6] / IPv6(src=CLIENT6, dst=STRANGER6) / UDP(), "not_served"),
    # dropped
    Row("no hop left outside", tunnelled(4, 4, ttl=0), "ttl_expired"),
    Row("no hop left outside, IPv6", tunnelled(6, 6, hlim=0), "ttl_expired"),
    Row("no hop left inside", ETHER / TUNNELS[4] / IP(src=CLIENT, dst=VIP, ttl=0) / TCP(), "ttl_expired"),
    Row("no hop left inside, IPv6", ETHER / TUNNELS[4] / IPv6(dst=VIP6, hlim=0) / TCP(), "ttl_expired"),
    Row("half a header inside", bytes(tunnelled(4, 4))[:53], "malformed"),
    Row("half an IPv6 header inside", bytes(tunnelled(4, 6))[:73], "malformed"),
    Row("IPv4 called IPv6", tunnelled(4, 4, proto=41), "malformed"),
    Row("IPv6 called IPv4", tunnelled(6, 6, nh=4), "malformed"),
    Row("an outer length beyond the frame", tunnelled(4, 4, len=500), "malformed"),
    Row("an outer length that cuts the packet", tunnelled(4, 4, len=64), "malformed"),
    Row("an outer IPv6 length beyond the frame", tunnelled(6, 6, plen=500), "malformed"),
    Row("an outer checksum that is wrong", tunnelled(4, 4, chksum=1), "malformed"),
    Row("congestion that the sender did not ask for", outer_marked(4, INSIDE[4], CE), "congested"),
    Row("congestion that the sender did not ask for, IPv6", outer_marked(6, INSIDE[6], CE), "congested"),
]
DROPS = {"malformed", "ttl_expired", "congested"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.description)
def test_what_comes_of_it(node: Node, row: Row) -> None:
    verdict, returned, frame = node.decap(bytes(row.packet))
    same(frame, row.output or row.packet)
    assert verdict == row.verdict
    assert returned == (XDP_DROP if verdict in DROPS else XDP_PASS)


def test_every_verdict_is_reached() -> None:
    assert {row.verdict for row in ROWS} | {"clamped"} == {"", *NAMES}


SYN_ACK = {
    4: ETHER / IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=40000, flags="SA"),
    6: ETHER / IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=80, dport=40000, flags="SA"),
}


def with_options(version: int, *options: tuple[str, Any], flags: str = "SA", start: Packet = ETHER) -> Packet:
    packet = start / SYN_ACK[version].copy()[1]
    packet[TCP].options, packet[TCP].flags = list(options), flags
    return packet


NOTHING = ("NOP", None)
LINUX = (("SAckOK", b""), ("Timestamp", (1, 2)), NOTHING, ("WScale", 7))


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("flags", ["S", "SA"])
@pytest.mark.parametrize(("version", "fits"), [(4, SEGMENT), (6, SEGMENT6)])
def test_a_segment_too_big_is_lowered(node: Node, version: int, fits: int, flags: str, tags: str) -> None:
    packet = with_options(version, ("MSS", 1460), *LINUX, flags=flags, start=TAGS[tags])
    verdict, returned, frame = node.clamp(bytes(packet))
    same(frame, with_options(version, ("MSS", fits), *LINUX, flags=flags, start=TAGS[tags]))
    assert (verdict, returned) == ("clamped", TC_NEXT)


@pytest.mark.parametrize("before", range(5))
def test_the_option_may_stand_anywhere(node: Node, before: int) -> None:
    """At odd bytes too, where it is added to the checksum with its bytes swapped."""
    for segment in (1441, 1460, 8960, 65535):
        packet = with_options(4, *[NOTHING] * before, ("MSS", segment))
        verdict, _, frame = node.clamp(bytes(packet))
        same(frame, with_options(4, *[NOTHING] * before, ("MSS", SEGMENT)))
        assert verdict == "clamped"


TIMES = ("Timestamp", (1, 2))
MSS = ("MSS", 1460)
UNCHANGED = {
    "as large as fits": with_options(4, ("MSS", SEGMENT)),
    "smaller": with_options(4, ("MSS", 536)),
    "no options": SYN_ACK[4],
    "other options": with_options(4, *LINUX),
    "the end of options comes first": with_options(4, ("EOL", None), MSS),
    "not a SYN": with_options(4, MSS, flags="A"),
    "another service": ETHER / IP(src=NODE, dst=CLIENT) / TCP(flags="SA", options=[MSS]),
    "a service that fits": ETHER / IP(src=ANY_SEGMENT, dst=CLIENT) / TCP(flags="SA", options=[MSS]),
    "UDP": ETHER / IP(src=VIP, dst=CLIENT) / UDP() / Raw(bytes(40)),
    "an option of length 0": raw(with_options(4, TIMES, MSS), 55, b"\0"),
    "an option of length 1": raw(with_options(4, TIMES, MSS), 55, b"\1"),
    "a segment option of length 3": raw(with_options(4, MSS), 55, b"\3"),
    "an option that ends behind the header": raw(with_options(4, MSS), 54, b"\x08\x08"),
    "a header that ends behind the packet": raw(SYN_ACK[4], 46, b"\xf0"),
    "a header shorter than a header": raw(with_options(4, MSS), 46, b"\x40"),
    "half a header": bytes(SYN_ACK[4])[:50],
    "ARP": ETHER / ARP(),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_everything_else_leaves_as_it_came(node: Node, case: str) -> None:
    verdict, returned, frame = node.clamp(bytes(UNCHANGED[case]))
    same(frame, UNCHANGED[case])
    assert (verdict, returned) == ("", TC_NEXT)
