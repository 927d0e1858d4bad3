"""The table of packets: what each becomes, whole, and under which verdict."""

from dataclasses import dataclass, field

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Padding

from tests.packet.balancer import Balancer
from tests.packet.packets import (
    CLIENT,
    ETHERNET,
    IPV4,
    IPV4_AND_TCP,
    NODE_B,
    NODE_C,
    NOT_A_VIP,
    PRIVATE_MAC,
    PUBLIC_MAC,
    ROUTER_MAC,
    SECOND_VIP,
    SPORT,
    TLS,
    VIP,
    WEB,
    from_client,
    from_node,
    to_client,
    to_node,
)


@dataclass
class Row:
    """`output` None: the packet leaves as it came. `before`: packets of the client that come first."""

    description: str
    packet: Packet | bytes
    verdict: str
    output: Packet | None = None
    before: list[Packet] = field(default_factory=list)


SYN = from_client("S")
OTHER_ETHERNET = Ether(src=ROUTER_MAC, dst=PUBLIC_MAC)
OPTIONS = [IPOption_NOP(), IPOption_NOP(), IPOption_NOP(), IPOption_NOP()]


def with_ip(packet: Packet, **fields: object) -> bytes:
    """The frame with fields of its IPv4 header that scapy would otherwise work out."""
    for name, value in fields.items():
        setattr(packet[IP], name, value)
    return bytes(packet)


PUBLIC = [
    Row("a SYN opens a flow", SYN, "opened", to_node("S")),
    Row("a retransmitted SYN stays with its flow", SYN, "forwarded", to_node("S"), [SYN]),
    Row("a packet of a flow", from_client("A"), "forwarded", to_node("A"), [SYN]),
    Row("data", from_client("PA", payload=b"GET /"), "forwarded", to_node("PA", payload=b"GET /"), [SYN]),
    Row("an odd number of bytes", from_client("PA", payload=b"x"), "forwarded", to_node("PA", payload=b"x"), [SYN]),
    Row("FIN", from_client("FA"), "forwarded", to_node("FA"), [SYN]),
    Row("RST", from_client("R"), "forwarded", to_node("R"), [SYN]),
    Row("the service's other address", from_client("S", to=SECOND_VIP), "opened", to_node("S")),
    Row("a service that keeps its port", from_client("S", dport=TLS), "opened", to_node("S", dport=TLS)),
    Row("a port below 1024 is kept too", from_client("S", sport=1), "opened", to_node("S", sport=1)),
    Row("two hops left", from_client("S", ttl=2), "opened", to_node("S", ttl=1)),
    Row("IPv4 options travel on", from_client("S", options=OPTIONS), "opened", to_node("S", options=OPTIONS)),
    Row("padding travels on", bytes(SYN) + bytes(6), "opened", to_node("S") / Padding(bytes(6))),
    # passed untouched
    Row("another address", from_client("S", to=NOT_A_VIP), "no_service"),
    Row("another port", from_client("S", dport=81), "no_service"),
    Row("another address's port", from_client("S", to=SECOND_VIP, dport=TLS), "no_service"),
    Row("another address, one hop left", from_client("S", to=NOT_A_VIP, ttl=1), "no_service"),
    Row("a first fragment for another address", with_ip(from_client(to=NOT_A_VIP), flags="MF"), "no_service"),
    Row("ARP", OTHER_ETHERNET / ARP(), "not_ipv4"),
    Row("IPv6", OTHER_ETHERNET / IPv6() / TCP(dport=WEB), "not_ipv4"),
    Row("VLAN", OTHER_ETHERNET / Dot1Q(vlan=7) / IP(dst=VIP) / TCP(dport=WEB, flags="S"), "not_ipv4"),
    Row("two VLANs", OTHER_ETHERNET / Dot1Q() / Dot1Q() / IP(dst=VIP) / TCP(dport=WEB), "not_ipv4"),
    Row("UDP to the service's port", OTHER_ETHERNET / IP(dst=VIP) / UDP(dport=WEB), "not_tcp"),
    Row("a later fragment", with_ip(from_client(), frag=1), "later_fragment"),
    Row("the last fragment", with_ip(from_client(), frag=8191), "later_fragment"),
    Row("no flow", from_client("A"), "no_flow"),
    Row("FIN without a flow", from_client("FA"), "no_flow"),
    Row("RST without a flow", from_client("R"), "no_flow"),
    Row("SYN and ACK without a flow", from_client("SA"), "no_flow"),
    Row("SYN and FIN open nothing", from_client("SF"), "no_flow"),
    Row("SYN and RST open nothing", from_client("SR"), "no_flow"),
    Row("no flags at all", from_client(""), "no_flow"),
    Row("another client's flow", from_client("A", sport=SPORT + 1), "no_flow", None, [SYN]),
    Row("the client's flow to the other address", from_client("A", to=SECOND_VIP), "no_flow", None, [SYN]),
    # dropped
    Row("one hop left", from_client("S", ttl=1), "ttl_expired"),
    Row("no hop left", from_client("S", ttl=0), "ttl_expired"),
    Row("one hop left, of a flow", from_client("A", ttl=1), "ttl_expired", None, [SYN]),
    Row("a first fragment", with_ip(from_client("S"), flags="MF"), "fragment"),
    Row("an Ethernet header alone", bytes(SYN)[:ETHERNET], "malformed"),
    Row("half an IPv4 header", bytes(SYN)[: IPV4 - 1], "malformed"),
    Row("half a TCP header", bytes(SYN)[: IPV4_AND_TCP - 1], "malformed"),
    Row("IPv4 says version 5", with_ip(from_client("S"), version=5), "malformed"),
    Row("IPv4 header of 16 bytes", with_ip(from_client("S"), ihl=4), "malformed"),
    Row("IPv4 header longer than the packet", with_ip(from_client("S"), ihl=15), "malformed"),
    Row("IPv4 length beyond the frame", with_ip(from_client("S"), len=41), "malformed"),
    Row("IPv4 length within the TCP header", with_ip(from_client("S"), len=39), "malformed"),
    Row("IPv4 length within its own header", with_ip(from_client("S"), len=19), "malformed"),
    Row("a short UDP packet is its own affair", OTHER_ETHERNET / IP(dst=VIP, proto=17), "not_tcp"),
]

PRIVATE = [
    Row("SYN and ACK", from_node("SA"), "returned", to_client("SA")),
    Row("data", from_node("PA", payload=b"200 OK"), "returned", to_client("PA", payload=b"200 OK")),
    Row("an odd number of bytes", from_node("PA", payload=b"x"), "returned", to_client("PA", payload=b"x")),
    Row("FIN", from_node("FA"), "returned", to_client("FA")),
    Row("RST", from_node("RA"), "returned", to_client("RA")),
    Row("two hops left", from_node(ttl=2), "returned", to_client(ttl=1)),
    Row("IPv4 options travel on", from_node(options=OPTIONS), "returned", to_client(options=OPTIONS)),
    Row("to another address", from_node(to=NODE_B), "not_a_reply"),
    Row("to another port", from_node(dport=SPORT + 1), "not_a_reply"),
    Row("from another port", from_node(sport=WEB), "not_a_reply"),
    Row("from another node", from_node(node=NODE_B), "not_a_reply"),
    Row("to another address, one hop left", from_node(to=NODE_B, ttl=1), "not_a_reply"),
    Row("ARP", Ether(dst=PRIVATE_MAC) / ARP(), "not_a_reply"),
    Row("IPv6", Ether(dst=PRIVATE_MAC) / IPv6() / TCP(dport=SPORT), "not_a_reply"),
    Row("UDP", Ether(dst=PRIVATE_MAC) / IP(src=NODE_B, dst=CLIENT) / UDP(), "not_a_reply"),
    Row("a later fragment", with_ip(from_node(), frag=1), "not_a_reply"),
    Row("half a TCP header", bytes(from_node())[: IPV4_AND_TCP - 1], "not_a_reply"),
    Row("IPv4 length beyond the frame", with_ip(from_node(), len=41), "not_a_reply"),
    Row("a first fragment", with_ip(from_node(), flags="MF"), "fragment"),
    Row("one hop left", from_node(ttl=1), "ttl_expired"),
]


def description(row: Row) -> str:
    return row.description


@pytest.mark.parametrize("row", PUBLIC, ids=description)
def test_public_side(balancer: Balancer, row: Row) -> None:
    for packet in row.before:
        balancer.public(packet)
    balancer.public(row.packet).must_be(row.verdict, row.output or row.packet)


@pytest.mark.parametrize("row", PRIVATE, ids=description)
def test_private_side_of_an_open_flow(balancer: Balancer, row: Row) -> None:
    balancer.public(SYN)
    balancer.private(row.packet).must_be(row.verdict, row.output or row.packet)


def test_an_answer_without_a_flow_is_the_kernels(balancer: Balancer) -> None:
    balancer.private(from_node("SA")).must_be("not_a_reply", from_node("SA"))


def test_no_node_owns_the_slot(balancer: Balancer) -> None:
    balancer.set_slots(None)
    balancer.public(SYN).must_be("no_node", SYN)


def test_the_nodes_next_hop_is_not_known(balancer: Balancer) -> None:
    balancer.set_slots(NODE_C)
    balancer.public(SYN).must_be("no_neighbour", SYN)
    assert not balancer.return_paths()


def test_the_next_hop_is_lost_while_a_flow_is_open(balancer: Balancer) -> None:
    balancer.public(SYN)
    balancer.maps.set_node(1, "10.0.0.11", None)
    balancer.public(from_client("A")).must_be("no_neighbour", from_client("A"))


def test_the_flows_node_is_gone(balancer: Balancer) -> None:
    balancer.public(SYN)
    balancer.maps.clear_node(1)
    balancer.public(from_client("A")).must_be("node_gone", from_client("A"))


def test_the_flows_node_number_belongs_to_another_node(balancer: Balancer) -> None:
    balancer.public(SYN)
    balancer.set_node(1, NODE_B)
    balancer.public(from_client("A")).must_be("node_gone", from_client("A"))


def test_a_new_syn_leaves_a_node_that_is_gone(balancer: Balancer) -> None:
    balancer.public(SYN)
    balancer.set_slots(NODE_B)
    balancer.maps.clear_node(1)
    balancer.public(SYN).must_be("opened", to_node("S", node=NODE_B))
    balancer.public(from_client("A")).must_be("forwarded", to_node("A", node=NODE_B))


def test_a_flow_stays_with_its_node_when_the_slots_change(balancer: Balancer) -> None:
    balancer.public(SYN)
    balancer.set_slots(NODE_B)
    balancer.public(from_client("A")).must_be("forwarded", to_node("A"))
    balancer.public(SYN).must_be("forwarded", to_node("S"))
