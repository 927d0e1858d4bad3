"""What does not fit is answered; ICMP errors about what nodes sent find their node."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    PadN,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from gale.dataplane.testrun import run_program
from tests.packet.direct import (
    CLIENT6,
    L2,
    L3_4,
    NARROW,
    NARROW_WAY,
    NODE,
    OTHER,
    SLOTS,
    UNKNOWN,
    VERSIONS,
    VIP6,
    WAYS,
    Direct,
    Way,
    fragments,
    from_client,
    ip,
    on_one_cpu,
    tcp,
    to_node,
    turned,
    udp,
    with_options,
)
from tests.packet.oracle import slot
from tests.packet.packets import CLIENT, NOT_A_VIP, PUBLIC_MAC, ROUTER_MAC, SPORT, VIP

Transport = Callable[..., Packet]

ROUTER, ROUTER6 = "203.0.113.1", "2001:db8:9::1"
"""Somewhere between the client and the load balancer."""
QUOTED = {4: 128, 6: 1232}
ANSWERS_PER_S = 1000

every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
every_version = pytest.mark.parametrize("version", VERSIONS)
every_protocol = pytest.mark.parametrize("transport", [tcp, udp], ids=["tcp", "udp"])


def of_size(packet: Packet, size: int) -> Packet:
    """The IP packet, filled up."""
    return packet / Raw(bytes(number % 251 for number in range(size - len(packet))))


def answer(version: int, packet: Packet, mtu: int, *tags: Packet) -> Packet:
    """What the sender of the packet gets."""
    frame = Ether(src=PUBLIC_MAC, dst=ROUTER_MAC)
    for tag in tags:
        frame = frame / tag
    quoted = bytes(packet)[: QUOTED[version]]
    if version == 4:
        icmp = ICMP(type=3, code=4, nexthopmtu=mtu)
        return frame / IP(src=VIP, dst=CLIENT, id=0, tos=0xC0, ttl=64) / icmp / Raw(quoted)
    # as bytes: scapy would work out the checksum over what it takes the quoted packet for
    return frame / IPv6(src=VIP6, dst=CLIENT6, tc=0xC0, hlim=64) / ICMPv6PacketTooBig(mtu=mtu) / Raw(quoted)


@every_protocol
@every_version
@every_way
class TestTooBig:
    def test_is_answered(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        """One byte more than fits."""
        direct.set_owner(NARROW_WAY)
        fits = NARROW - way.overhead
        packet = of_size(ip(version) / transport(way), fits)
        direct.public(from_client(packet)).must_be(way.verdict, to_node(way, packet, NARROW_WAY))
        packet = of_size(ip(version) / transport(way), fits + 1)
        direct.public(from_client(packet)).must_be("too_big", answer(version, packet, fits))

    def test_without_dont_fragment_too(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        direct.set_owner(NARROW_WAY)
        for fields in ({"flags": "DF"}, {"flags": 0}) if version == 4 else ({},):
            packet = of_size(ip(version, **fields) / transport(way), 1500)
            expected = answer(version, packet, NARROW - way.overhead)
            direct.public(from_client(packet)).must_be("too_big", expected)

    def test_in_vlans(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        """It goes back in those that the packet came in."""
        direct.set_owner(NARROW_WAY)
        packet = of_size(ip(version) / transport(way), 1500)
        for tags in ([Dot1Q(vlan=7, prio=5)], [Dot1AD(vlan=8), Dot1Q(vlan=7)], [Dot1Q(vlan=8), Dot1AD(vlan=7)]):
            expected = answer(version, packet, NARROW - way.overhead, *tags)
            direct.public(from_client(packet, *tags)).must_be("too_big", expected)

    def test_with_options(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        direct.set_owner(NARROW_WAY)
        packet = of_size(with_options(version) / transport(way), 1500)
        expected = answer(version, packet, NARROW - way.overhead)
        direct.public(from_client(packet)).must_be("too_big", expected)

    def test_with_padding(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        direct.set_owner(NARROW_WAY)
        packet = of_size(ip(version) / transport(way), 1480)
        expected = answer(version, packet, NARROW - way.overhead)
        direct.public(bytes(from_client(packet)) + bytes(20)).must_be("too_big", expected)

    def test_a_first_fragment(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        direct.set_owner(NARROW_WAY)
        first, last = fragments(version, transport(way) / Raw(bytes(3000)), cut=1440)
        expected = answer(version, first, NARROW - way.overhead)
        direct.public(from_client(first)).must_be("too_big", expected)
        direct.public(from_client(last)).must_be("too_big_quiet", from_client(last))

    def test_counts_no_traffic(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        direct.set_owner(NARROW_WAY)
        before = direct.traffic(way)
        direct.public(from_client(of_size(ip(version) / transport(way), 1500)))
        assert direct.traffic(way) == before


def test_long_extension_headers_are_quoted(direct: Direct) -> None:
    """So that the sender finds the ports behind them."""
    direct.set_owner(NARROW_WAY)
    packet = of_size(ip(6) / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(250))] * 3) / tcp(L3_4), 1500)
    outcome = direct.public(from_client(packet))
    outcome.must_be("too_big", answer(6, packet, NARROW - 20))


@every_version
def test_only_so_many_answers_a_second(direct: Direct, version: int) -> None:
    """On each CPU: the rest is dropped without a word, and counted."""
    direct.set_owner(NARROW_WAY)
    packet = bytes(from_client(of_size(ip(version) / tcp(L2), 1500)))
    before = direct.counters()
    begin = time.monotonic()
    with on_one_cpu():
        for _ in range(ANSWERS_PER_S + 200):
            run_program(direct.program.public_fd, packet)
    took_s = time.monotonic() - begin
    told, quiet = (direct.counters()[name] - before[name] for name in ("too_big", "too_big_quiet"))
    assert told + quiet == ANSWERS_PER_S + 200
    assert told == ANSWERS_PER_S or took_s >= 1


def error(version: int, kind: Packet, quoted: Packet, **fields: Any) -> Packet:
    """From a router, to the service's address, about a packet that a node sent from there."""
    source = {4: ROUTER, 6: ROUTER6}[version]
    return ip(version, src=source, **fields) / kind / Raw(bytes(quoted))


def answered(version: int, way: Way, transport: Callable[..., Packet], sport: int = SPORT) -> Packet:
    """What a node sent to the client."""
    source, destination = {4: (VIP, CLIENT), 6: (VIP6, CLIENT6)}[version]
    return ip(version, src=source, dst=destination) / transport(way, sport=way.dport, dport=sport) / bytes(64)


FRAGMENTATION_NEEDED = ICMP(type=3, code=4, nexthopmtu=1300)
ERRORS = {
    4: [
        FRAGMENTATION_NEEDED,
        *(ICMP(type=3, code=code) for code in (0, 1, 3, 13)),
        ICMP(type=11, code=0),
        ICMP(type=12, code=0),
    ],
    6: [ICMPv6PacketTooBig(mtu=1300), ICMPv6DestUnreach(code=4), ICMPv6TimeExceeded(), ICMPv6ParamProblem()],
}


@every_protocol
@every_version
@every_way
class TestErrors:
    def test_go_to_the_node_of_the_flow(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        """Each of two nodes gets those about its own flows, of every kind, as it gets the flow's packets."""
        owners = (NODE, OTHER)
        direct.set_owners([owners[number % 2].number for number in range(SLOTS)])
        seen = set()
        for sport in range(SPORT, SPORT + 16):
            client, address = {4: (CLIENT, VIP), 6: (CLIENT6, VIP6)}[version]
            number = slot(client, sport, address, way.dport, SLOTS, {tcp: 6, udp: 17}[transport])
            for kind in ERRORS[version] if number % 2 not in seen else []:
                packet = error(version, kind, answered(version, way, transport, sport))
                expected = to_node(way, packet, owners[number % 2])
                direct.public(from_client(packet)).must_be("error_forwarded", expected)
            seen.add(number % 2)
        assert len(seen) == 2

    def test_quote_what_they_quote(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        """8 bytes of the transport header are enough, and options or extension headers may come before."""
        quoted = answered(version, way, transport)
        header = 20 if version == 4 else 40
        for packet in (
            error(version, ERRORS[version][0], bytes(quoted)[: header + 8]),
            error(version, ERRORS[version][0], turned(with_options(version)) / quoted.payload),
            error(version, ERRORS[version][0], quoted, **({"options": b"\1\1\1\0"} if version == 4 else {})),
        ):
            direct.public(from_client(packet)).must_be("error_forwarded", to_node(way, packet))

    def test_about_a_first_fragment(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        first, last = fragments(version, transport(way, sport=way.dport, dport=SPORT) / bytes(64))
        packet = error(version, ERRORS[version][0], turned(first))
        direct.public(from_client(packet)).must_be("error_forwarded", to_node(way, packet))
        packet = error(version, ERRORS[version][0], turned(last))
        direct.public(from_client(packet)).must_be("unrelated_error", from_client(packet))

    def test_about_other_packets(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        elsewhere = {4: NOT_A_VIP, 6: CLIENT6}[version]
        mine, kind = answered(version, way, transport), ERRORS[version][0]
        theirs, cut = mine.copy(), bytes(mine)[: (20 if version == 4 else 40) + 7]
        theirs.src = elsewhere
        for quoted in (theirs, turned(mine), ip(version, dst=elsewhere) / transport(way), cut, b""):
            packet = error(version, kind, quoted)
            direct.public(from_client(packet)).must_be("unrelated_error", from_client(packet))

    def test_to_another_address(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        """An error comes to who sent the packet that it is about; anything else is not for a service."""
        elsewhere = {4: NOT_A_VIP, 6: CLIENT6}[version]
        packet = error(version, ERRORS[version][0], answered(version, way, transport), dst=elsewhere)
        direct.public(from_client(packet)).must_be("unrelated_error", from_client(packet))

    def test_hops(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        packet = error(version, ERRORS[version][0], answered(version, way, transport), ttl=1)
        direct.public(from_client(packet)).must_be("ttl_expired", from_client(packet))

    def test_no_neighbour(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        direct.set_owner(UNKNOWN)
        packet = error(version, ERRORS[version][0], answered(version, way, transport))
        direct.public(from_client(packet)).must_be("no_neighbour", from_client(packet))

    def test_are_not_answered(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        direct.set_owner(NARROW_WAY)
        packet = error(version, ERRORS[version][0], answered(version, way, transport) / bytes(1350))
        direct.public(from_client(packet)).must_be("too_big_quiet", from_client(packet))
