"""What does not fit is answered; ICMP errors about what nodes sent find their node."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.packet.direct import (
    CLIENT6,
    L2,
    L3_4,
    L3_6,
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
    Node,
    Way,
    fragments,
    from_client,
    ip,
    tcp,
    to_node,
    udp,
    with_options,
)
from tests.packet.oracle import slot
from tests.packet.packets import CLIENT, NOT_A_VIP, PUBLIC_MAC, ROUTER_MAC, SPORT, VIP

ROUTER, ROUTER6 = "203.0.113.1", "2001:db8:9::1"
"""Somewhere between the client and the load balancer."""
QUOTED = {4: 128, 6: 1016}
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
    def test_is_answered(self, direct: Direct, way: Way, version: int, transport) -> None:
        """One byte more than fits."""
        direct.set_owner(NARROW_WAY)
        fits = NARROW - way.overhead
        packet = of_size(ip(version) / transport(way), fits)
        direct.public(from_client(packet)).must_be(way.verdict, to_node(way, packet, NARROW_WAY))
        packet = of_size(ip(version) / transport(way), fits + 1)
        direct.public(from_client(packet)).must_be("too_big", answer(version, packet, fits))

    def test_without_dont_fragment_too(self, direct: Direct, way: Way, version: int, transport) -> None:
        direct.set_owner(NARROW_WAY)
        for fields in ({"flags": "DF"}, {"flags": 0}) if version == 4 else ({},):
            packet = of_size(ip(version, **fields) / transport(way), 1500)
            expected = answer(version, packet, NARROW - way.overhead)
            direct.public(from_client(packet)).must_be("too_big", expected)

    def test_in_vlans(self, direct: Direct, way: Way, version: int, transport) -> None:
        """It goes back in those that the packet came in."""
        direct.set_owner(NARROW_WAY)
        packet = of_size(ip(version) / transport(way), 1500)
        for tags in ([Dot1Q(vlan=7, prio=5)], [Dot1AD(vlan=8), Dot1Q(vlan=7)], [Dot1Q(vlan=8), Dot1AD(vlan=7)]):
            expected = answer(version, packet, NARROW - way.overhead, *tags)
            direct.public(from_client(packet, *tags)).must_be("too_big", expected)

    def test_with_options(self, direct: Direct, way: Way, version: int, transport) -> None:
        direct.set_owner(NARROW_WAY)
        packet = of_size(with_options(version) / transport(way), 1500)
        expected = answer(version, packet, NARROW - way.overhead)
        direct.public(from_client(packet)).must_be("too_big", expected)

    def test_with_padding(self, direct: Direct, way: Way, version: int, transport) -> None:
        direct.set_owner(NARROW_WAY)
        packet = of_size(ip(version) / transport(way), 1480)
        expected = answer(version, packet, NARROW - way.overhead)
        direct.public(bytes(from_client(packet)) + bytes(20)).must_be("too_big", expected)

    def test_a_first_fragment(self, direct: Direct, way: Way, version: int, transport) -> None:
        direct.set_owner(NARROW_WAY)
        first, last = fragments(version, transport(way) / Raw(bytes(3000)), cut=1440)
        expected = answer(version, first, NARROW - way.overhead)
        direct.public(from_client(first)).must_be("too_big", expected)
        direct.public(from_client(last)).must_be("too_big_quiet", from_client(last))

    def test_counts_no_traffic(self, direct: Direct, way: Way, version: int, transport) -> None:
        direct.set_owner(NARROW_WAY)
        before = direct.traffic(way)
        direct.public(from_client(of_size(ip(version) / transport(way), 1500)))
        assert direct.traffic(way) == before


def test_long_extension_headers_are_quoted(direct: Direct) -> None:
    """So that the sender finds the ports behind them."""
    direct.set_owner(NARROW_WAY)
    packet = of_size(ip(6) / IPv6ExtHdrDestOpt(len=99, options=[Raw(bytes(798))]) / tcp(L3_4), 1500)
    outcome = direct.public(from_client(packet))
    outcome.must_be("too_big", answer(6, packet, NARROW - 20))


@every_version
def test_only_so_many_answers_a_second(direct: Direct, version: int) -> None:
    """On each CPU: the rest is dropped without a word, and counted."""
    direct.set_owner(NARROW_WAY)
    packet = bytes(from_client(of_size(ip(version) / tcp(L2), 1500)))
    with on_one_cpu():
        verdicts = [direct.public(packet).verdict for _ in range(ANSWERS_PER_S + 200)]
    told = verdicts.count("too_big")
    assert set(verdicts) == {"too_big", "too_big_quiet"}
    assert ANSWERS_PER_S <= told < ANSWERS_PER_S + 200
