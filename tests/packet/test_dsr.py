"""Modes l2 and l3, whole frames: every way to a node with both IP versions inside, TCP and UDP."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.packet import Packet, Padding, Raw

from tests.packet.direct import (
    BEHIND_A_ROUTER,
    CLIENT6,
    L2,
    L3_4,
    L3_6,
    NODE,
    ONLY_4,
    ONLY_BY_6,
    OTHER,
    SETTINGS,
    SLOTS,
    UNKNOWN,
    UNPLUGGED,
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
from tests.packet.packets import CLIENT, NOT_A_VIP, SPORT, VIP

Transport = Callable[..., Packet]

every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
every_tunnel = pytest.mark.parametrize("way", [L3_4, L3_6], ids=lambda way: way.name)
every_version = pytest.mark.parametrize("version", VERSIONS)
every_protocol = pytest.mark.parametrize("transport", [tcp, udp], ids=["tcp", "udp"])


@every_protocol
@every_version
@every_way
class TestEveryCell:
    def test_a_packet(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        packet = ip(version) / transport(way) / b"data"
        direct.public(from_client(packet)).must_be(way.verdict, to_node(way, packet))

    def test_options(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        packet = with_options(version) / transport(way) / b"x"
        direct.public(from_client(packet)).must_be(way.verdict, to_node(way, packet))

    def test_fragments_follow_their_first(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        direct.set_owners([(NODE, OTHER)[number % 2].number for number in range(SLOTS)])
        for sport in range(SPORT, SPORT + 4):
            first, last = fragments(version, transport(way, sport=sport) / Raw(bytes(64)))
            owner = owner_of(version, way, sport, first)
            direct.public(from_client(first)).must_be(way.verdict, to_node(way, first, owner))
            direct.public(from_client(last)).must_be(way.verdict, to_node(way, last, owner))

    def test_a_fragment_without_its_first(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        _, last = fragments(version, transport(way) / Raw(bytes(64)))
        direct.public(from_client(last)).must_be("later_fragment", from_client(last))

    def test_hops(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        for hops in (0, 1):
            packet = from_client(ip(version, ttl=hops) / transport(way))
            direct.public(packet).must_be("ttl_expired", packet)
        for hops in (2, 255):
            packet = ip(version, ttl=hops) / transport(way)
            direct.public(from_client(packet)).must_be(way.verdict, to_node(way, packet))

    def test_no_node(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        packet = from_client(ip(version) / transport(way))
        direct.set_owner(None)
        direct.public(packet).must_be("no_node", packet)
        direct.set_owner(NODE)
        direct.clear_node(NODE)
        direct.public(packet).must_be("no_node", packet)

    def test_no_neighbour(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        packet = from_client(ip(version) / transport(way))
        for node in (UNKNOWN, UNPLUGGED):
            direct.set_owner(node)
            direct.public(packet).must_be("no_neighbour", packet)

    def test_nobody_elses_packets(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        elsewhere = {4: NOT_A_VIP, 6: CLIENT6}[version]
        for packet in (ip(version, dst=elsewhere) / transport(way), ip(version) / transport(way, dport=way.dport + 1)):
            direct.public(from_client(packet)).must_be("no_service", from_client(packet))

    def test_traffic_is_counted(self, direct: Direct, way: Way, version: int, transport: Transport) -> None:
        packet = ip(version) / transport(way) / bytes(100)
        before = direct.traffic(way), direct.node_traffic(NODE)
        direct.public(from_client(packet) / Padding(bytes(10)))
        for old, new in zip(before, (direct.traffic(way), direct.node_traffic(NODE)), strict=True):
            grown = {name: value - old.get(name, 0) for name, value in new.items() if value != old.get(name, 0)}
            assert grown == {"in_packets": 1, "in_bytes": len(packet)}


def owner_of(version: int, way: Way, sport: int, packet: Packet) -> Node:
    """By the model's hash, of two nodes that own every other slot."""
    client, address = {4: (CLIENT, VIP), 6: (CLIENT6, VIP6)}[version]
    udp_inside = packet.proto == 17 if version == 4 else packet.lastlayer().underlayer.nh == 17
    number = slot(client, sport, address, way.dport, SLOTS, 17 if udp_inside else 6)
    return (NODE, OTHER)[number % 2]


@every_version
@every_way
def test_a_syn_is_a_flow(direct: Direct, way: Way, version: int) -> None:
    before = direct.traffic(way).get("flows", 0)
    for flags in ("S", "A", "SA", "FA", "SEC"):
        direct.public(from_client(ip(version) / tcp(way, flags)))
    assert direct.traffic(way)["flows"] - before == 2


@every_version
@every_tunnel
def test_what_was_not_sent_is_not_counted(direct: Direct, way: Way, version: int) -> None:
    direct.set_owner(UNKNOWN)
    before = direct.traffic(way)
    direct.public(from_client(ip(version) / tcp(way)))
    assert direct.traffic(way) == before


@every_version
def test_a_bridge_reaches_the_link_only(direct: Direct, version: int) -> None:
    packet = ip(version) / tcp(L2)
    direct.set_owner(BEHIND_A_ROUTER)
    direct.public(from_client(packet)).must_be("not_on_link", from_client(packet))


@every_version
@every_tunnel
def test_a_tunnel_reaches_beyond_routers(direct: Direct, way: Way, version: int) -> None:
    packet = ip(version) / tcp(way)
    direct.set_owner(BEHIND_A_ROUTER)
    direct.public(from_client(packet)).must_be("tunnelled", to_node(way, packet, BEHIND_A_ROUTER))


@every_version
def test_a_bridge_by_the_other_neighbour(direct: Direct, version: int) -> None:
    packet = ip(version) / tcp(L2)
    direct.set_owner(ONLY_BY_6)
    direct.public(from_client(packet)).must_be("bridged", to_node(L2, packet, ONLY_BY_6))


@every_version
def test_a_tunnel_to_a_node_without_ipv6(direct: Direct, version: int) -> None:
    packet = ip(version) / tcp(L3_6)
    direct.set_owner(ONLY_4)
    direct.public(from_client(packet)).must_be("tunnelled", to_node(L3_6, packet, ONLY_4, outer=4))


@every_tunnel
@every_version
@pytest.mark.parametrize("traffic_class", [0x01, 0x02, 0x03, 0xB8, 0xFF])
def test_the_class_of_traffic_is_the_tunnels_too(direct: Direct, way: Way, version: int, traffic_class: int) -> None:
    packet = ip(version, **{"tos" if version == 4 else "tc": traffic_class}) / tcp(way)
    direct.public(from_client(packet)).must_be("tunnelled", to_node(way, packet))


@every_way
def test_padding_travels_on(direct: Direct, way: Way) -> None:
    packet = ip(4) / tcp(way)
    frame = bytes(from_client(packet)) + bytes(6)
    direct.public(frame).must_be(way.verdict, to_node(way, packet) / Padding(bytes(6)))


@every_way
@pytest.mark.parametrize("checksum", [0, 1, 0xFFFE])
def test_a_wrong_checksum_is_the_nodes_to_find(direct: Direct, way: Way, checksum: int) -> None:
    packet = ip(4) / tcp(way, chksum=checksum)
    direct.public(from_client(packet)).must_be(way.verdict, to_node(way, packet))


@every_tunnel
def test_the_inner_checksum_for_every_sum(direct: Direct, way: Way) -> None:
    """The hop that is taken off carries into every bit of it."""
    for number in range(0, 65536, 251):
        packet = ip(4, id=number) / tcp(way)
        direct.public(from_client(packet)).must_be("tunnelled", to_node(way, packet))


@every_way
@every_version
def test_extension_headers(direct: Direct, way: Way, version: int) -> None:
    """Those of IPv6 that come before the ports; of IPv4, the longest header."""
    if version == 4:
        packet = ip(4, options=b"\x01" * 40) / tcp(way)
    else:
        packet = ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / tcp(way)
    direct.public(from_client(packet)).must_be(way.verdict, to_node(way, packet))


UNTOUCHED = {
    "an echo request": (ip(4) / ICMP(), "other_protocol"),
    "an echo request, IPv6": (ip(6) / ICMPv6EchoRequest(), "other_protocol"),
    "a protocol without ports": (ip(4, proto=89) / Raw(bytes(40)), "other_protocol"),
    "half a TCP header": (ip(4, len=39) / tcp(L2), "malformed"),
    "half a UDP header": (ip(4, proto=17) / Raw(bytes(7)), "malformed"),
    "half a TCP header, IPv6": (ip(6, nh=6) / Raw(bytes(19)), "malformed"),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_left_alone(direct: Direct, case: str) -> None:
    packet, verdict = UNTOUCHED[case]
    direct.public(from_client(packet)).must_be(verdict, from_client(packet))


def test_slots_choose_the_node(direct: Direct) -> None:
    """Of both IP versions and protocols, as the model has it."""
    nodes = (NODE, OTHER)
    direct.set_owners([nodes[number % 2].number for number in range(SLOTS)])
    for version in VERSIONS:
        for transport in (tcp, udp):
            for sport in range(1, 60000, 1999):
                packet = ip(version) / transport(L2, sport=sport)
                client, address = {4: (CLIENT, VIP), 6: (CLIENT6, VIP6)}[version]
                protocol = 6 if transport is tcp else 17
                number = slot(client, sport, address, L2.dport, SLOTS, protocol)
                direct.public(from_client(packet)).must_be("bridged", to_node(L2, packet, nodes[number % 2]))


def test_a_load_balancer_without_ipv6() -> None:
    """It has no source for IPv6 tunnels."""
    listeners = tuple(listener for listener in SETTINGS.listeners if listener.mode == "l3")
    alone = Direct(replace(SETTINGS, source_address6=None, listeners=listeners))
    packet = ip(6) / tcp(L3_6)
    alone.public(from_client(packet)).must_be("tunnelled", to_node(L3_6, packet, outer=4))
