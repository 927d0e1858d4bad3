"""Explanations: what would become of a packet, by the packet path itself, and without a trace."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6TimeExceeded
from scapy.packet import Packet, Raw

from gale.dataplane.abi import verdicts
from gale.dataplane.settings import MODES
from gale.dataplane.testrun import run_program
from tests.packet.direct import (
    BEHIND_A_ROUTER,
    CLIENT6,
    L2,
    NARROW_WAY,
    NODE,
    OTHER,
    SETTINGS,
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
    tcp,
    to_node,
    turned,
    udp,
)
from tests.packet.moving import Moving
from tests.packet.oracle import slot
from tests.packet.packets import CLIENT, SPORT, VIP, difference

FOUND_LISTENER, FOUND_SLOT, FOUND_NODE, FOUND_FLOW = 1, 2, 4, 8
WRITTEN = ("verdicts", "service_traffic", "node_traffic", "answer_rate", "fragments", "flows", "returns", "strays")
"""Every map that the packet path writes."""
SMALL = tuple(name for name in WRITTEN if name != "node_traffic")

Transport = Callable[..., Packet]

every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
every_version = pytest.mark.parametrize("version", VERSIONS)
every_protocol = pytest.mark.parametrize("transport", [tcp, udp], ids=["tcp", "udp"])


def explain(direct: Direct, packet: Packet | bytes, names: Sequence[str] = WRITTEN) -> tuple[str, Any, bytes]:
    """The verdict, the rest of the explanation, and the packet as it would leave."""
    before = written(direct, names)
    run = run_program(direct.explainers.fds["gale_explain_public"], bytes(packet))
    assert written(direct, names) == before
    told = direct.maps["explanation"][0]
    return verdicts()[told.verdict].name, told, run.packet


def written(direct: Direct, names: Sequence[str]) -> dict[str, object]:
    return {name: direct.maps[name].items() for name in names}


@every_protocol
@every_version
@every_way
def test_a_packet_of_a_service(direct: Direct, way: Way, version: int, transport: Transport) -> None:
    nodes = (NODE, OTHER)
    direct.set_owners([nodes[number % 2].number for number in range(SLOTS)])
    for sport in range(SPORT, SPORT + 4):
        packet = ip(version) / transport(way, sport=sport) / b"data"
        verdict, told, frame = explain(direct, from_client(packet))
        client, address = {4: (CLIENT, VIP), 6: (CLIENT6, VIP6)}[version]
        number = slot(client, sport, address, way.dport, SLOTS, {tcp: 6, udp: 17}[transport])
        assert verdict == way.verdict
        assert not (text := difference(frame, bytes(to_node(way, packet, nodes[number % 2])))), text
        assert told.found == FOUND_LISTENER | FOUND_SLOT | FOUND_NODE
        assert (told.slot, told.node, told.mode) == (number, nodes[number % 2].number, MODES[way.mode])
        assert SETTINGS.services[told.service] == way.name
        listener = SETTINGS.listeners[told.listener - 1]
        assert (listener.address, listener.port) == (address, way.dport)
        assert {tcp: "tcp", udp: "udp"}[transport] == listener.protocol


def test_a_connection_whose_slot_has_moved(direct: Direct) -> None:
    """Whether that is known already or not: nothing is learnt from a question."""
    moving = Moving(direct)
    moving.own([NODE])
    moving.own([OTHER])
    packet = ip(4) / tcp(L2)
    for _ in range(2):
        verdict, told, frame = explain(direct, from_client(packet))
        assert (verdict, told.node) == ("stayed", NODE.number)
        assert not (text := difference(frame, bytes(to_node(L2, packet)))), text
        moving.sent(from_client(packet))
    verdict, told, _ = explain(direct, from_client(ip(4) / tcp(L2, "S")))
    assert (verdict, told.node) == ("bridged", OTHER.number)


@every_protocol
@every_version
@every_way
def test_it_is_what_happens(direct: Direct, way: Way, version: int, transport: Transport) -> None:
    """Verdict and frame are those of the packet path itself, for whatever comes."""
    packet = ip(version) / transport(way)
    first, last = fragments(version, transport(way) / Raw(bytes(64)))
    source = {4: "203.0.113.1", 6: "2001:db8:9::1"}[version]
    kind = {4: ICMP(type=11), 6: ICMPv6TimeExceeded()}[version]
    quoted = turned(ip(version)) / transport(way, sport=way.dport, dport=SPORT)
    frames = [
        packet,
        first,
        last,
        ip(version, ttl=1) / transport(way),
        ip(version) / transport(way, dport=9),
        ip(version, src=source) / kind / Raw(bytes(quoted)),
        ip(version, src=source) / kind / Raw(bytes(turned(quoted))),
        packet / bytes(1500 - len(packet)),
    ]
    for node in (NODE, UNKNOWN, BEHIND_A_ROUTER, NARROW_WAY, None):
        direct.set_owner(node)
        for frame in map(from_client, frames):
            verdict, _, left = explain(direct, frame, SMALL)
            direct.public(frame).must_be(verdict, left)


def test_no_service(direct: Direct) -> None:
    packet = from_client(ip(4) / tcp(L2, dport=9))
    verdict, told, frame = explain(direct, packet)
    assert (verdict, told.found, frame) == ("no_service", 0, bytes(packet))


def test_no_node(direct: Direct) -> None:
    direct.set_owner(None)
    verdict, told, _ = explain(direct, from_client(ip(4) / tcp(L2)))
    assert (verdict, told.found, told.node) == ("no_node", FOUND_LISTENER | FOUND_SLOT, 0)


def test_a_node_that_cannot_be_reached_is_named(direct: Direct) -> None:
    direct.set_owner(UNKNOWN)
    verdict, told, _ = explain(direct, from_client(ip(4) / tcp(L2)))
    assert (verdict, told.node) == ("no_neighbour", UNKNOWN.number)


def test_nothing_is_left_of_the_last_one(direct: Direct) -> None:
    explain(direct, from_client(ip(4) / tcp(L2)))
    _, told, _ = explain(direct, b"\0" * 14)
    assert bytes(told)[4:] == bytes(len(bytes(told)) - 4)


def test_a_fragment_is_explained_by_its_first(direct: Direct) -> None:
    """By what the first one left; an explanation of a first one leaves nothing."""
    first, last = fragments(4, udp(L2) / Raw(bytes(64)))
    explain(direct, from_client(first))
    assert explain(direct, from_client(last))[0] == "later_fragment"
    direct.public(from_client(first))
    verdict, told, _ = explain(direct, from_client(last))
    assert (verdict, told.node) == ("bridged", NODE.number)
