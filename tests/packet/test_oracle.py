"""The model itself, before anything is judged by it: what it says must leave is what scapy builds from scratch."""

from itertools import product
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.packet.oracle import Hop, Listener, Model, Node, World, packed, slot
from tests.packet.oracle.checksum import mended, mended_udp
from tests.packet.oracle.flows import Span
from tests.packet.oracle.model import Result
from tests.packet.oracle.parse import parse
from tests.packet.packets import difference

CLIENTS = {4: "198.51.100.7", 6: "2001:db8:c::7"}
SERVICES = {"l2": {4: "192.0.2.1", 6: "2001:db8::1"}, "l3": {4: "192.0.2.2", 6: "2001:db8::2"}}
SERVICES |= {"l4": {4: "192.0.2.3", 6: "2001:db8::3"}, "l3 by 6": {4: "192.0.2.4", 6: "2001:db8::4"}}
SOURCES = {4: "10.0.0.1", 6: "fd00::1"}
NODES = {4: "10.0.0.11", 6: "fd00::11"}
ROUTER, PUBLIC, OWN = "02:00:00:00:01:01", "02:00:00:00:01:02", "02:00:00:00:02:01"
HOPS = {4: "02:00:00:00:02:11", 6: "02:00:00:00:02:16"}
PROTOCOLS = {TCP: 6, UDP: 17}
SPORT, PORT, TARGET, CHOSEN = 40000, 80, 8080, 50000


def at(moment_s: float) -> Span:
    return Span(moment_s, moment_s)


def listeners() -> list[Listener]:
    return [
        Listener(name, packed(address), PORT, protocol, name[:2], TARGET, 6 if "by 6" in name else 4)
        for name, addresses in SERVICES.items()
        for address in addresses.values()
        for protocol in PROTOCOLS.values()
    ]


def hop(version: int, vlan: int = 0) -> Hop:
    return Hop(bytes.fromhex((HOPS[version] + OWN).replace(":", "")), vlan)


@pytest.fixture
def model() -> Model:
    node = Node(packed(NODES[4]), packed(NODES[6]), hop(4), hop(6))
    return Model(World(listeners(), packed(SOURCES[4]), packed(SOURCES[6]), {1: node}, {s: [1] for s in SERVICES}))


def ip(version: int, source: str, destination: str, ttl: int = 64, **fields: Any) -> Packet:
    if version == 4:
        return IP(src=source, dst=destination, ttl=ttl, **fields)
    return IPv6(src=source, dst=destination, hlim=ttl, **fields)


def asked(version: int, mode: str, transport: type[Packet], **fields: Any) -> Packet:
    """From the client, as it arrives but for Ethernet."""
    flags = {"flags": "S"} if transport is TCP else {}
    above = transport(sport=SPORT, dport=PORT, **flags) / b"hello"
    return ip(version, CLIENTS[version], SERVICES[mode][version], **fields) / above


def arriving(packet: Packet, *tags: Packet) -> bytes:
    frame = Ether(src=ROUTER, dst=PUBLIC)
    for tag in tags:
        frame /= tag
    return bytes(frame / packet)


def leaving(version: int, packet: Packet) -> bytes:
    return bytes(Ether(src=OWN, dst=HOPS[version]) / packet)


def must_be(model: Model, frame: bytes, verdict: str, expected: bytes, private: bool = False) -> None:
    """The model takes it, and would not take it with any byte changed."""
    ask = model.private if private else model.public
    text = ask(frame, (verdict, expected), at(0.0))
    assert not text, f"{text}\n{difference(_wanted(text), expected)}"


def _wanted(complaint: str) -> bytes:
    """The frame that a complaint asks for."""
    last = complaint.splitlines()[-1]
    return bytes.fromhex(last) if len(last) > 28 and " " not in last else b""


BOTH = [(version, transport) for version, transport in product((4, 6), (TCP, UDP))]


@pytest.mark.parametrize(("version", "transport"), BOTH)
def test_bridged(model: Model, version: int, transport: type[Packet]) -> None:
    packet = asked(version, "l2", transport)
    must_be(model, arriving(packet), "bridged", leaving(4, packet))


@pytest.mark.parametrize(("version", "transport"), BOTH)
@pytest.mark.parametrize(("mode", "outer"), [("l3", 4), ("l3 by 6", 6)])
def test_tunnelled(model: Model, version: int, transport: type[Packet], mode: str, outer: int) -> None:
    mark = {"tos": 0xB9} if version == 4 else {"tc": 0xB9}
    above = {"tos": 0xB9, "id": 0, "flags": "DF"} if outer == 4 else {"tc": 0xB9}
    inner = asked(version, mode, transport, ttl=63, **mark)
    expected = leaving(outer, ip(outer, SOURCES[outer], NODES[outer], **above) / inner)
    must_be(model, arriving(asked(version, mode, transport, **mark)), "tunnelled", expected)


def translated(version: int, transport: type[Packet], **fields: Any) -> Packet:
    flags = {"flags": "S"} if transport is TCP else {}
    above = transport(sport=CHOSEN, dport=TARGET, **flags) / b"hello"
    return ip(version, SOURCES[version], NODES[version], ttl=63, **fields) / above


@pytest.mark.parametrize(("version", "transport"), BOTH)
def test_translated_and_back(model: Model, version: int, transport: type[Packet]) -> None:
    """The port that the program chose is the model's from then on."""
    expected = leaving(version, translated(version, transport))
    must_be(model, arriving(asked(version, "l4", transport)), "opened", expected)
    must_be(model, arriving(asked(version, "l4", transport)), "forwarded", expected)
    above = transport(sport=TARGET, dport=CHOSEN) / b"odd"
    answer = Ether(src=HOPS[version], dst=OWN) / ip(version, NODES[version], SOURCES[version]) / above
    back = transport(sport=PORT, dport=SPORT) / b"odd"
    there = ip(version, SERVICES["l4"][version], CLIENTS[version], ttl=63) / back
    must_be(model, bytes(answer), "returned", bytes(Ether(src=PUBLIC, dst=ROUTER) / there), private=True)


def opened(model: Model, version: int, transport: type[Packet]) -> None:
    frame = arriving(asked(version, "l4", transport))
    must_be(model, frame, "opened", leaving(version, translated(version, transport)))


def error(version: int, source: str, destination: str, about: Packet, ttl: int = 64) -> Packet:
    kind = ICMP(type=3, code=4, nexthopmtu=1300) if version == 4 else ICMPv6PacketTooBig(mtu=1300)
    return ip(version, source, destination, ttl=ttl) / kind / Raw(bytes(about))


@pytest.mark.parametrize(("version", "transport"), BOTH)
def test_errors_about_answers(model: Model, version: int, transport: type[Packet]) -> None:
    """Whole packets are quoted, so that all of their checksums can be compared."""
    opened(model, version, transport)
    service, client = SERVICES["l4"][version], CLIENTS[version]
    about = ip(version, service, client, ttl=9) / transport(sport=PORT, dport=SPORT) / b"200 OK"
    inside = ip(version, NODES[version], SOURCES[version], ttl=9) / transport(sport=TARGET, dport=CHOSEN) / b"200 OK"
    sent = error(version, client, service, about)
    expected = error(version, SOURCES[version], NODES[version], inside, ttl=63)
    must_be(model, arriving(sent), "error_forwarded", leaving(version, expected))


@pytest.mark.parametrize(("version", "transport"), BOTH)
def test_errors_about_requests(model: Model, version: int, transport: type[Packet]) -> None:
    opened(model, version, transport)
    about = ip(version, SOURCES[version], NODES[version], ttl=9) / transport(sport=CHOSEN, dport=TARGET) / b"GET /"
    inside = (
        ip(version, CLIENTS[version], SERVICES["l4"][version], ttl=9) / transport(sport=SPORT, dport=PORT) / b"GET /"
    )
    sent = Ether(src=HOPS[version], dst=OWN) / error(version, NODES[version], SOURCES[version], about)
    expected = error(version, SERVICES["l4"][version], CLIENTS[version], inside, ttl=63)
    must_be(model, bytes(sent), "error_returned", bytes(Ether(src=PUBLIC, dst=ROUTER) / expected), private=True)


@pytest.mark.parametrize(("version", "transport"), BOTH)
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_errors_take_the_way_of_their_flow(model: Model, version: int, transport: type[Packet], mode: str) -> None:
    about = ip(version, SERVICES[mode][version], CLIENTS[version]) / transport(sport=PORT, dport=SPORT)
    sent = error(version, CLIENTS[version], SERVICES[mode][version], about)
    expected = leaving(4, sent)
    if mode == "l3":
        inner = error(version, CLIENTS[version], SERVICES[mode][version], about, ttl=63)
        expected = leaving(4, ip(4, SOURCES[4], NODES[4], id=0, flags="DF") / inner)
    must_be(model, arriving(sent), "error_forwarded", expected)


def test_a_quote_may_end_behind_the_ports(model: Model) -> None:
    opened(model, 4, TCP)
    about = ip(4, SERVICES["l4"][4], CLIENTS[4]) / TCP(sport=PORT, dport=SPORT)
    inside = ip(4, NODES[4], SOURCES[4]) / TCP(sport=TARGET, dport=CHOSEN)
    sent = error(4, CLIENTS[4], SERVICES["l4"][4], Raw(bytes(about)[:28]))
    expected = error(4, SOURCES[4], NODES[4], Raw(bytes(inside)[:28]), ttl=63)
    must_be(model, arriving(sent), "error_forwarded", leaving(4, expected))


def test_tags_come_off_and_go_on(model: Model) -> None:
    """A hop's tag is put on; those of the client's network are not seen by the node."""
    node = model.world.nodes[1]
    model.world.nodes[1] = Node(node.address, node.address6, hop(4, vlan=7), hop(6))
    packet = asked(4, "l2", TCP)
    tagged = Ether(src=OWN, dst=HOPS[4]) / Dot1Q(vlan=7) / packet
    must_be(model, arriving(packet, Dot1AD(vlan=100), Dot1Q(vlan=5)), "bridged", bytes(tagged))


def test_options_and_extension_headers_travel_on(model: Model) -> None:
    options = [IPOption_NOP()] * 8
    packet = asked(4, "l4", TCP, options=options)
    must_be(model, arriving(packet), "opened", leaving(4, translated(4, TCP, options=options)))
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    sent = IPv6(src=CLIENTS[6], dst=SERVICES["l4"][6]) / chain / UDP(sport=SPORT, dport=PORT) / b"hello"
    expected = IPv6(src=SOURCES[6], dst=NODES[6], hlim=63) / chain / UDP(sport=CHOSEN, dport=TARGET) / b"hello"
    must_be(model, arriving(sent), "opened", leaving(6, expected))


def test_too_many_extension_headers(model: Model) -> None:
    sent = IPv6(src=CLIENTS[6], dst=SERVICES["l2"][6])
    for _ in range(7):
        sent /= IPv6ExtHdrDestOpt()
    assert parse(arriving(sent / UDP())) == "extensions"


def test_fragments_follow_their_first(model: Model) -> None:
    """A later one without its first is the kernel's."""
    first = IPv6(src=CLIENTS[6], dst=SERVICES["l2"][6]) / IPv6ExtHdrFragment(m=1, id=5, nh=17)
    later = IPv6(src=CLIENTS[6], dst=SERVICES["l2"][6]) / IPv6ExtHdrFragment(offset=1, id=5, nh=17) / b"12345678"
    first /= Raw(bytes(UDP(sport=SPORT, dport=PORT, len=16, chksum=1)))
    must_be(model, arriving(later), "later_fragment", arriving(later))
    must_be(model, arriving(first), "bridged", leaving(4, first))
    must_be(model, arriving(later), "bridged", leaving(4, later))


def too_big(version: int, told: int) -> tuple[bytes, bytes]:
    """A packet for l3, and the answer to it."""
    packet = asked(version, "l3", UDP) / Raw(bytes(1500))
    service, client = SERVICES["l3"][version], CLIENTS[version]
    kind = ICMP(type=3, code=4, nexthopmtu=told) if version == 4 else ICMPv6PacketTooBig(mtu=told)
    answer = ip(version, service, client) / kind / Raw(bytes(packet)[:128])
    return arriving(packet), bytes(Ether(src=PUBLIC, dst=ROUTER) / answer)


@pytest.mark.parametrize("version", [4, 6])
def test_answers_to_what_is_too_big(model: Model, version: int) -> None:
    frame, answer = too_big(version, 1480)
    must_be(model, frame, "too_big", answer)
    must_be(model, frame, "too_big_quiet", frame)
    for place in (*range(12), 30, len(answer) - 1):
        wrong = answer[:place] + bytes((answer[place] ^ 1,)) + answer[place + 1 :]
        assert model.public(frame, ("too_big", wrong), at(0.0)), f"byte {place}"
    assert model.public(frame, ("too_big", too_big(version, 1500)[1]), at(0.0))


def test_every_byte_counts(model: Model) -> None:
    frame = arriving(asked(6, "l4", UDP))
    expected = leaving(6, translated(6, UDP))
    must_be(model, frame, "opened", expected)
    for place in range(len(expected)):
        wrong = expected[:place] + bytes((expected[place] ^ 1,)) + expected[place + 1 :]
        got: Result = "forwarded", wrong
        assert model.public(frame, got, at(0.0)), f"byte {place}"


def test_no_two_flows_share_a_port(model: Model) -> None:
    opened(model, 4, TCP)
    other = ip(4, "198.51.100.8", SERVICES["l4"][4]) / TCP(sport=1, dport=PORT, flags="S") / b"hello"
    text = model.public(arriving(other), ("opened", leaving(4, translated(4, TCP))), at(0.0))
    assert "another flow" in text


def test_a_flow_that_has_ended_may_be_gone(model: Model) -> None:
    opened(model, 4, TCP)
    reset = ip(4, CLIENTS[4], SERVICES["l4"][4]) / TCP(sport=SPORT, dport=PORT, flags="R")
    there = ip(4, SOURCES[4], NODES[4], ttl=63) / TCP(sport=CHOSEN, dport=TARGET, flags="R")
    must_be(model, arriving(reset), "forwarded", leaving(4, there))
    gone = "no_flow", arriving(reset)
    assert model.public(arriving(reset), gone, at(0.1))
    assert not model.public(arriving(reset), gone, at(1.0))


@pytest.mark.parametrize(("flags", "may_be_gone"), [("SA", True), ("A", False)])
def test_a_node_that_accepts_again_keeps_no_flow_that_has_ended(model: Model, flags: str, may_be_gone: bool) -> None:
    opened(model, 4, TCP)
    (flow,) = model.flows.by_key.values()
    flow.client_fin = True
    flow.saw(int(TCP(flags="FA").flags), False, at(0.0))
    flow.saw(int(TCP(flags=flags).flags), False, at(0.4))
    assert model.flows.may_be_over(flow, at(0.6)) is may_be_gone


@pytest.mark.parametrize(("checksum", "change", "expected"), [(0, 0, 0), (0xFFFF, 0, 0), (1, 1, 0), (0, 1, 0xFFFE)])
def test_the_two_zeroes(checksum: int, change: int, expected: int) -> None:
    assert mended(checksum, change) == expected
    assert mended_udp(checksum, change) == (0 if not checksum else expected or 0xFFFF)


def test_slots_of_known_flows() -> None:
    """On every load balancer and in every version the same: a change of these numbers moves every flow."""
    assert slot("198.51.100.7", 40000, "192.0.2.80", 80, 16384) == 11781
    assert slot("2001:db8:c::7", 40000, "2001:db8::1", 80, 16384, 17) == 15493


def test_a_time_exceeded_is_an_error(model: Model) -> None:
    about = ip(6, SERVICES["l2"][6], CLIENTS[6]) / UDP(sport=PORT, dport=SPORT)
    sent = ip(6, "2001:db8:f::1", SERVICES["l2"][6]) / ICMPv6TimeExceeded() / Raw(bytes(about))
    must_be(model, arriving(sent), "error_forwarded", leaving(4, sent))
