"""VLAN tags: a frame leaves with the tag of the hop it takes, whatever it came with."""

from collections.abc import Callable

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Padding

from tests.packet.direct import (
    NODE,
    TAGGED,
    VERSIONS,
    WAYS,
    Direct,
    Node,
    Way,
    from_client,
    ip,
    tcp,
    to_node,
    udp,
)

Transport = Callable[..., Packet]

TAGS = {
    "untagged": (),
    "one": (Dot1Q(vlan=7, prio=3),),
    "the tag of the hop": (Dot1Q(vlan=9),),
    "one of a provider": (Dot1AD(vlan=8),),
    "two": (Dot1Q(vlan=8), Dot1Q(vlan=7)),
    "a provider's and one": (Dot1AD(vlan=8, dei=1), Dot1Q(vlan=7)),
}

every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
every_version = pytest.mark.parametrize("version", VERSIONS)
every_tag = pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS.keys())
every_node = pytest.mark.parametrize("node", [NODE, TAGGED], ids=["to untagged", "to tagged"])


@pytest.mark.parametrize("transport", [tcp, udp], ids=["tcp", "udp"])
@every_node
@every_tag
@every_version
@every_way
def test_the_tag_of_the_hop(
    direct: Direct, way: Way, version: int, tags: tuple[Packet, ...], node: Node, transport: Transport
) -> None:
    direct.set_owner(node)
    packet = ip(version) / transport(way) / b"data"
    direct.public(from_client(packet, *tags)).must_be(way.verdict, to_node(way, packet, node))


@every_node
@every_tag
@every_way
def test_padding_travels_on(direct: Direct, way: Way, tags: tuple[Packet, ...], node: Node) -> None:
    direct.set_owner(node)
    packet = ip(4) / tcp(way)
    frame = bytes(from_client(packet, *tags)) + bytes(7)
    direct.public(frame).must_be(way.verdict, to_node(way, packet, node) / Padding(bytes(7)))


@every_tag
def test_what_is_for_no_service_keeps_its_tags(direct: Direct, tags: tuple[Packet, ...]) -> None:
    frame = from_client(ip(4) / tcp(WAYS[0], dport=9), *tags)
    direct.public(frame).must_be("no_service", frame)


THREE = from_client(ip(4) / tcp(WAYS[0]), Dot1Q(vlan=1), Dot1Q(vlan=2), Dot1Q(vlan=3))
CUT = {
    "three tags": (bytes(THREE), "not_ip"),
    "half a tag": (bytes(THREE)[:17], "malformed"),
    "half a second tag": (bytes(THREE)[:21], "malformed"),
    "a tag and no packet": (bytes(from_client(IP(), Dot1Q()))[:18], "malformed"),
    "something else in a VLAN": (bytes(Ether() / Dot1Q(vlan=7, type=0x88CC) / bytes(40)), "not_ip"),
}


@pytest.mark.parametrize("case", CUT)
def test_left_alone(direct: Direct, case: str) -> None:
    frame, verdict = CUT[case]
    direct.public(frame).must_be(verdict, frame)
