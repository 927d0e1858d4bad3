"""Explanations of mode l4: flows that are, flows that would be, and both directions; without a trace."""

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6TimeExceeded, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from gale.dataplane.abi import verdicts
from gale.dataplane.settings import MODES
from gale.dataplane.testrun import run_program
from gale.dataplane.words import flags
from tests.packet.direct import (
    CLIENT6,
    L4,
    NARROW_WAY,
    NODE,
    OTHER,
    SOURCE6,
    TARGET_PORT,
    UNKNOWN,
    VERSIONS,
    VIP6,
    Direct,
    from_client,
    ip,
    tcp,
    udp,
)
from tests.packet.packets import CLIENT, PRIVATE_MAC, SOURCE, SPORT, VIP, difference

FOUND_LISTENER, FOUND_SLOT, FOUND_NODE, FOUND_FLOW = 1, 2, 4, 8
WRITTEN = ("verdicts", "service_traffic", "node_traffic", "answer_rate", "fragments", "flows", "returns")

Transport = Callable[..., Packet]

every_version = pytest.mark.parametrize("version", VERSIONS)
every_protocol = pytest.mark.parametrize("transport", [tcp, udp], ids=["tcp", "udp"])


def explain(direct: Direct, packet: Packet, side: str = "public") -> tuple[str, Any, bytes]:
    """The verdict, the rest of the explanation, and the packet as it would leave."""
    before = {name: direct.maps[name].items() for name in WRITTEN}
    run = run_program(direct.explainers.fds[f"gale_explain_{side}"], bytes(packet))
    assert {name: direct.maps[name].items() for name in WRITTEN} == before
    told = direct.maps["explanation"][0]
    return verdicts()[told.verdict].name, told, run.packet


def first(version: int, transport: Transport) -> Packet:
    """Opens a flow."""
    return ip(version) / (tcp(L4, "S", seq=100) if transport is tcp else udp(L4))


def from_node(version: int, transport: Transport, sport: int = SPORT, **fields: Any) -> Packet:
    """An answer, as it arrives on the private side."""
    own, node = {4: (SOURCE, NODE.address), 6: (SOURCE6, NODE.address6)}[version]
    packet = ip(version, src=node, dst=own) / transport(L4, sport=TARGET_PORT, dport=sport, **fields)
    return Ether(src=NODE.mac, dst=PRIVATE_MAC) / packet


def to_the_node(version: int, packet: Packet, sport: int = SPORT) -> Packet:
    """The client's packet with the addresses and ports that the node sees."""
    own, node = {4: (SOURCE, NODE.address), 6: (SOURCE6, NODE.address6)}[version]
    packet = packet.copy()
    packet.src, packet.dst, packet.payload.sport, packet.payload.dport = own, node, sport, TARGET_PORT
    if version == 4:
        packet.ttl -= 1
    else:
        packet.hlim -= 1
    return Ether(src=PRIVATE_MAC, dst=NODE.mac) / packet


@every_protocol
@every_version
def test_a_flow_that_would_be_opened(direct: Direct, version: int, transport: Transport) -> None:
    packet = first(version, transport)
    verdict, told, frame = explain(direct, from_client(packet))
    assert verdict == "opened"
    assert told.found == FOUND_LISTENER | FOUND_SLOT | FOUND_NODE
    assert (told.node, told.mode, socket.ntohs(told.source_port)) == (NODE.number, MODES["l4"], SPORT)
    assert not (text := difference(frame, bytes(to_the_node(version, packet)))), text
    direct.public(from_client(packet)).must_be(verdict, frame)


@every_version
def test_the_port_that_it_would_have(direct: Direct, version: int) -> None:
    """Another client has the port: what is told is free, though chance may choose another when it comes to it."""
    direct.public(from_client(first(version, tcp)))
    other = ip(version, src={4: "198.51.100.8", 6: "2001:db8:c::8"}[version]) / tcp(L4, "S")
    verdict, told, frame = explain(direct, from_client(other))
    assert verdict == "opened"
    port = socket.ntohs(told.source_port)
    assert port != SPORT
    assert Ether(frame)[TCP].sport == port


@every_protocol
@every_version
def test_a_flow_that_is(direct: Direct, version: int, transport: Transport) -> None:
    direct.public(from_client(first(version, transport)))
    direct.set_owner(OTHER)  # the slot does not matter any more
    packet = ip(version) / transport(L4)
    verdict, told, frame = explain(direct, from_client(packet))
    assert verdict == "forwarded"
    assert told.found == FOUND_LISTENER | FOUND_NODE | FOUND_FLOW
    assert (told.node, socket.ntohs(told.source_port)) == (NODE.number, SPORT)
    assert told.flags & flags()["used"]
    assert not told.flags & flags()["established"]
    assert not (text := difference(frame, bytes(to_the_node(version, packet)))), text


@every_version
def test_an_established_flow(direct: Direct, version: int) -> None:
    direct.public(from_client(first(version, tcp)))
    direct.private(from_node(version, tcp, flags="SA", seq=300, ack=101))
    direct.public(from_client(ip(version) / tcp(L4, "A", seq=101, ack=301)))
    _, told, _ = explain(direct, from_client(ip(version) / tcp(L4, "A", seq=101, ack=301)))
    assert told.flags & flags()["established"]


@every_version
def test_no_flow(direct: Direct, version: int) -> None:
    packet = from_client(ip(version) / tcp(L4))
    verdict, told, frame = explain(direct, packet)
    assert (verdict, told.found, frame) == ("no_flow", FOUND_LISTENER, bytes(packet))


@every_version
def test_a_flow_whose_node_has_gone(direct: Direct, version: int) -> None:
    direct.public(from_client(first(version, tcp)))
    direct.clear_node(NODE)
    verdict, told, _ = explain(direct, from_client(ip(version) / tcp(L4)))
    assert (verdict, told.found, told.node) == (
        "node_gone",
        FOUND_LISTENER | FOUND_NODE | FOUND_FLOW,
        NODE.number,
    )


@every_version
def test_a_flow_that_cannot_go_on(direct: Direct, version: int) -> None:
    """What is known is told in any case."""
    direct.public(from_client(first(version, tcp)))
    for like, expected in ((UNKNOWN, "no_neighbour"), (NARROW_WAY, "too_big")):
        direct.set_node(replace(NODE, hop4=like.hop4, hop6=like.hop6))
        packet = ip(version) / tcp(L4)
        verdict, told, _ = explain(direct, from_client(packet / bytes(1500 - len(packet))))
        assert (verdict, told.found & FOUND_FLOW, told.node) == (expected, FOUND_FLOW, NODE.number)


@every_protocol
@every_version
def test_an_answer(direct: Direct, version: int, transport: Transport) -> None:
    direct.public(from_client(first(version, transport)))
    answer = from_node(version, transport)
    verdict, told, frame = explain(direct, answer, "private")
    assert verdict == "returned"
    assert told.found == FOUND_LISTENER | FOUND_NODE | FOUND_FLOW
    assert told.node == NODE.number
    left = Ether(frame)
    layer, service, client = {4: (IP, VIP, CLIENT), 6: (IPv6, VIP6, CLIENT6)}[version]
    assert (left[layer].src, left[layer].dst) == (service, client)
    assert (left[layer].payload.sport, left[layer].payload.dport) == (L4.dport, SPORT)


@every_version
def test_an_answer_that_no_flow_waits_for(direct: Direct, version: int) -> None:
    answer = from_node(version, tcp)
    verdict, told, frame = explain(direct, answer, "private")
    assert (verdict, told.found, frame) == ("not_a_reply", 0, bytes(answer))


@every_version
def test_an_error_about_a_flow(direct: Direct, version: int) -> None:
    direct.public(from_client(first(version, tcp)))
    source, service, client = {4: ("203.0.113.1", VIP, CLIENT), 6: ("2001:db8:9::1", VIP6, CLIENT6)}[version]
    quoted = ip(version, src=service, dst=client) / tcp(L4, sport=L4.dport, dport=SPORT)
    kind = {4: ICMP(type=11), 6: ICMPv6TimeExceeded()}[version]
    verdict, told, _ = explain(direct, from_client(ip(version, src=source) / kind / Raw(bytes(quoted))))
    assert (verdict, told.found) == ("error_forwarded", FOUND_LISTENER | FOUND_NODE | FOUND_FLOW)
