"""The table of packets of mode l4: what each becomes, whole, and under which verdict.

A row is for both IP versions, TCP and UDP, unless its `talks` say less.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Padding

from tests.packet.balancer import MTU, NUMBERS, PRIVATE_LINK, Balancer
from tests.packet.packets import (
    CLIENT,
    ETHERNET,
    HEADER,
    NODE_A,
    NODE_B,
    NODE_C,
    NOT_A_VIP,
    PRIVATE_MAC,
    PUBLIC_MAC,
    ROUTER_MAC,
    SECOND_VIP,
    SOURCE,
    SPORT,
    TALKS,
    TLS,
    VIP,
    WEB,
    Talk,
    packet_of,
    talk_name,
)

Make = Callable[[Talk], Packet | bytes]

TCP_ONLY = tuple(talk for talk in TALKS if talk.tcp)
UDP_ONLY = tuple(talk for talk in TALKS if not talk.tcp)
IPV4_ONLY = tuple(talk for talk in TALKS if talk.version == 4)
IPV6_ONLY = tuple(talk for talk in TALKS if talk.version == 6)


@dataclass
class Row:
    """`output` None: the packet leaves as it came. `before`: packets of the client that come first."""

    description: str
    packet: Make
    verdict: str
    output: Make | None = None
    before: tuple[Make, ...] = ()
    talks: tuple[Talk, ...] = field(default=TALKS)


def ethernet(packet: Packet) -> Packet:
    return Ether(src=ROUTER_MAC, dst=PUBLIC_MAC) / packet


def cut(frame: Packet, missing: int) -> bytes:
    return bytes(frame)[:-missing]


def with_ip(packet: Packet, **fields: Any) -> bytes:
    """The frame with fields of its IP header that scapy would otherwise work out."""
    layer = packet_of(packet)
    for name, value in fields.items():
        layer.setfieldval(name, value)
    return bytes(packet)


def with_length(packet: Packet, change: int) -> bytes:
    """The IP header says that the packet is longer, or shorter, than it is."""
    layer = packet_of(packet)
    if layer.version == 4:
        return with_ip(packet, len=len(bytes(layer)) + change)
    return with_ip(packet, plen=len(bytes(layer)) - HEADER[6] + change)


def with_flags(flags: str) -> Make:
    return lambda talk: talk.from_client(flags)


def some(talk: Talk) -> dict[str, Any]:
    """Something before the ports that travels on."""
    return {"options": [IPOption_NOP()] * 4} if talk.version == 4 else {"between": IPv6ExtHdrDestOpt()}


def extended(many: int) -> Packet:
    headers: Packet = IPv6ExtHdrDestOpt()
    for _ in range(many - 1):
        headers = headers / IPv6ExtHdrDestOpt()
    return headers


ALL_KINDS = (
    IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / IPv6ExtHdrFragment() / IPv6ExtHdrDestOpt()
)

UNFINISHED = IPv6ExtHdrRouting(segleft=1)


def syn(talk: Talk) -> Packet:
    return talk.from_client("S")


PUBLIC = [
    Row("the first packet opens a flow", syn, "opened", lambda talk: talk.to_node("S")),
    Row("it comes again", syn, "forwarded", lambda talk: talk.to_node("S"), (syn,)),
    Row("a packet of a flow", lambda talk: talk.from_client(), "forwarded", lambda talk: talk.to_node(), (syn,)),
    Row(
        "data",
        lambda talk: talk.from_client("PA", payload=b"GET /"),
        "forwarded",
        lambda talk: talk.to_node("PA", payload=b"GET /"),
        (syn,),
    ),
    Row(
        "an odd number of bytes",
        lambda talk: talk.from_client("PA", payload=b"x"),
        "forwarded",
        lambda talk: talk.to_node("PA", payload=b"x"),
        (syn,),
    ),
    Row("FIN", lambda talk: talk.from_client("FA"), "forwarded", lambda talk: talk.to_node("FA"), (syn,), TCP_ONLY),
    Row("RST", lambda talk: talk.from_client("R"), "forwarded", lambda talk: talk.to_node("R"), (syn,), TCP_ONLY),
    Row(
        "the other address", lambda talk: talk.from_client("S", to=SECOND_VIP), "opened", lambda talk: talk.to_node("S")
    ),
    Row(
        "a service that keeps its port",
        lambda talk: talk.from_client("S", dport=TLS),
        "opened",
        lambda talk: talk.to_node("S", dport=TLS),
    ),
    Row(
        "a port below 1024 is kept too",
        lambda talk: talk.from_client("S", sport=1),
        "opened",
        lambda talk: talk.to_node("S", sport=1),
    ),
    Row("two hops left", lambda talk: talk.from_client("S", ttl=2), "opened", lambda talk: talk.to_node("S", ttl=1)),
    Row(
        "options or an extension header travel on",
        lambda talk: talk.from_client("S", **some(talk)),
        "opened",
        lambda talk: talk.to_node("S", **some(talk)),
    ),
    Row(
        "every kind of extension header",
        lambda talk: talk.from_client("S", between=ALL_KINDS),
        "opened",
        lambda talk: talk.to_node("S", between=ALL_KINDS),
        talks=IPV6_ONLY,
    ),
    Row(
        "six extension headers",
        lambda talk: talk.from_client("S", between=extended(6)),
        "opened",
        lambda talk: talk.to_node("S", between=extended(6)),
        talks=IPV6_ONLY,
    ),
    Row(
        "padding travels on",
        lambda talk: syn(talk) / Padding(bytes(6)),
        "opened",
        lambda talk: talk.to_node("S") / Padding(bytes(6)),
    ),
    # passed untouched
    Row("another address", lambda talk: talk.from_client("S", to=NOT_A_VIP), "no_service"),
    Row("another port", lambda talk: talk.from_client("S", dport=81), "no_service"),
    Row("the port of another address", lambda talk: talk.from_client("S", to=SECOND_VIP, dport=TLS), "no_service"),
    Row("another address, one hop left", lambda talk: talk.from_client("S", to=NOT_A_VIP, ttl=1), "no_service"),
    Row(
        "a first fragment for another address",
        lambda talk: talk.fragments(talk.from_client(to=NOT_A_VIP, payload=bytes(64)))[0],
        "no_service",
    ),
    Row("a later fragment", lambda talk: talk.fragments(talk.from_client(payload=bytes(64)))[1], "later_fragment"),
    Row("no flow", lambda talk: talk.from_client(), "no_flow", talks=TCP_ONLY),
    *(
        Row(
            f"{flags or 'no flags'} without a flow",
            with_flags(flags),
            "no_flow",
            talks=TCP_ONLY,
        )
        for flags in ("FA", "R", "SA", "SF", "SR", "")
    ),
    Row(
        "another client's flow", lambda talk: talk.from_client(sport=SPORT + 1), "no_flow", None, (syn,), talks=TCP_ONLY
    ),
    Row(
        "the client's flow to the other address",
        lambda talk: talk.from_client(to=SECOND_VIP),
        "no_flow",
        None,
        (syn,),
        talks=TCP_ONLY,
    ),
    Row(
        "a routing header that names another hop",
        lambda talk: talk.from_client("S", between=IPv6ExtHdrDestOpt() / UNFINISHED),
        "other_protocol",
        talks=IPV6_ONLY,
    ),
    # dropped
    Row("one hop left", lambda talk: talk.from_client("S", ttl=1), "ttl_expired"),
    Row("no hop left", lambda talk: talk.from_client("S", ttl=0), "ttl_expired"),
    Row("one hop left, of a flow", lambda talk: talk.from_client(ttl=1), "ttl_expired", None, (syn,)),
    Row("half an IP header", lambda talk: bytes(syn(talk))[: ETHERNET + HEADER[talk.version] - 1], "malformed"),
    Row("half a transport header", lambda talk: cut(syn(talk), 1), "malformed"),
    Row("a version that does not fit", lambda talk: with_ip(syn(talk), version=10 - talk.version), "malformed"),
    Row("a length beyond the frame", lambda talk: with_length(syn(talk), 1), "malformed"),
    Row("a length within the transport header", lambda talk: with_length(syn(talk), -1), "malformed"),
    Row("a header of 16 bytes", lambda talk: with_ip(syn(talk), ihl=4), "malformed", talks=IPV4_ONLY),
    Row("a header longer than the packet", lambda talk: with_ip(syn(talk), ihl=15), "malformed", talks=IPV4_ONLY),
    Row("a length within its own header", lambda talk: with_ip(syn(talk), len=19), "malformed", talks=IPV4_ONLY),
    Row(
        "seven extension headers",
        lambda talk: talk.from_client("S", between=extended(7)),
        "extensions",
        talks=IPV6_ONLY,
    ),
    Row(
        "an extension header beyond the packet",
        lambda talk: talk.from_client("S", between=IPv6ExtHdrDestOpt(len=20)),
        "malformed",
        talks=IPV6_ONLY,
    ),
]

PRIVATE = [
    Row("the first answer", lambda talk: talk.from_node("SA"), "returned", lambda talk: talk.to_client("SA")),
    Row(
        "data",
        lambda talk: talk.from_node("PA", payload=b"200 OK"),
        "returned",
        lambda talk: talk.to_client("PA", payload=b"200 OK"),
    ),
    Row(
        "an odd number of bytes",
        lambda talk: talk.from_node("PA", payload=b"x"),
        "returned",
        lambda talk: talk.to_client("PA", payload=b"x"),
    ),
    Row("FIN", lambda talk: talk.from_node("FA"), "returned", lambda talk: talk.to_client("FA"), talks=TCP_ONLY),
    Row("RST", lambda talk: talk.from_node("RA"), "returned", lambda talk: talk.to_client("RA"), talks=TCP_ONLY),
    Row("two hops left", lambda talk: talk.from_node(ttl=2), "returned", lambda talk: talk.to_client(ttl=1)),
    Row(
        "options or an extension header travel on",
        lambda talk: talk.from_node(**some(talk)),
        "returned",
        lambda talk: talk.to_client(**some(talk)),
    ),
    Row(
        "every kind of extension header",
        lambda talk: talk.from_node(between=ALL_KINDS),
        "returned",
        lambda talk: talk.to_client(between=ALL_KINDS),
        talks=IPV6_ONLY,
    ),
    Row(
        "padding travels on",
        lambda talk: talk.from_node() / Padding(bytes(6)),
        "returned",
        lambda talk: talk.to_client() / Padding(bytes(6)),
    ),
    # passed untouched
    Row("to another address", lambda talk: talk.from_node(to=NODE_B), "not_a_reply"),
    Row("to another port", lambda talk: talk.from_node(dport=SPORT + 1), "not_a_reply"),
    Row("from another port", lambda talk: talk.from_node(sport=WEB), "not_a_reply"),
    Row("from another node", lambda talk: talk.from_node(node=NODE_B), "not_a_reply"),
    Row("to another address, one hop left", lambda talk: talk.from_node(to=NODE_B, ttl=1), "not_a_reply"),
    Row("a later fragment", lambda talk: talk.fragments(talk.from_node(payload=bytes(64)))[1], "not_a_reply"),
    Row("half a transport header", lambda talk: cut(talk.from_node(), 1), "not_a_reply"),
    Row("a length beyond the frame", lambda talk: with_length(talk.from_node(), 1), "not_a_reply"),
    Row("seven extension headers", lambda talk: talk.from_node(between=extended(7)), "not_a_reply", talks=IPV6_ONLY),
    Row(
        "a routing header that names another hop",
        lambda talk: talk.from_node(between=UNFINISHED),
        "not_a_reply",
        talks=IPV6_ONLY,
    ),
    # dropped
    Row("one hop left", lambda talk: talk.from_node(ttl=1), "ttl_expired"),
]

OTHERS = {
    "an Ethernet header alone": (bytes(ethernet(IP()))[:ETHERNET], "malformed"),
    "ARP": (ethernet(ARP()), "not_ip"),
    "three VLANs": (ethernet(Dot1Q() / Dot1Q() / Dot1Q() / IP(dst=VIP) / TCP(dport=WEB)), "not_ip"),
    "an echo request": (ethernet(IP(dst=VIP) / ICMP()), "other_protocol"),
    "an echo request by IPv6": (ethernet(IPv6(dst=TALKS[-1].address(VIP)) / ICMPv6EchoRequest()), "other_protocol"),
    "GRE": (ethernet(IP(dst=VIP, proto=47) / bytes(8)), "other_protocol"),
    "no next header": (ethernet(IPv6(dst=TALKS[-1].address(VIP), nh=59)), "other_protocol"),
}

OTHERS_BACK = {
    "ARP": Ether(dst=PRIVATE_MAC) / ARP(),
    "an echo reply": Ether(dst=PRIVATE_MAC) / IP(src=NODE_A, dst=SOURCE) / ICMP(type=0),
    "through this machine": Ether(dst=PRIVATE_MAC) / IP(src=NODE_B, dst=CLIENT) / UDP(),
}


def cells(rows: Iterable[Row]) -> pytest.MarkDecorator:
    there = [(row, talk) for row, talk in product(rows, TALKS) if talk in row.talks]
    ids = [f"{row.description}, {talk_name(talk)}" for row, talk in there]
    return pytest.mark.parametrize(("row", "talk"), there, ids=ids)


every_talk = pytest.mark.parametrize("talk", TALKS, ids=talk_name)


@cells(PUBLIC)
def test_public_side(balancer: Balancer, row: Row, talk: Talk) -> None:
    for before in row.before:
        balancer.public(before(talk))
    balancer.public(row.packet(talk)).must_be(row.verdict, (row.output or row.packet)(talk))


@cells(PRIVATE)
def test_private_side_of_an_open_flow(balancer: Balancer, row: Row, talk: Talk) -> None:
    balancer.public(syn(talk))
    balancer.private(row.packet(talk)).must_be(row.verdict, (row.output or row.packet)(talk))


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_packet_of_tcp_or_udp(balancer: Balancer, case: str) -> None:
    frame, verdict = OTHERS[case]
    balancer.public(frame).must_be(verdict, frame)


@pytest.mark.parametrize("case", OTHERS_BACK)
def test_what_is_no_answer(balancer: Balancer, case: str) -> None:
    balancer.private(OTHERS_BACK[case]).must_be("not_a_reply", OTHERS_BACK[case])


@every_talk
def test_an_answer_without_a_flow_is_the_kernels(balancer: Balancer, talk: Talk) -> None:
    balancer.private(talk.from_node("SA")).must_be("not_a_reply", talk.from_node("SA"))


@every_talk
def test_no_node_owns_the_slot(balancer: Balancer, talk: Talk) -> None:
    balancer.set_slots(None)
    balancer.public(syn(talk)).must_be("no_node", syn(talk))


@every_talk
def test_the_owner_of_the_slot_is_not_there(balancer: Balancer, talk: Talk) -> None:
    balancer.maps.clear_node(NUMBERS[NODE_A])
    balancer.public(syn(talk)).must_be("no_node", syn(talk))


@every_talk
def test_the_nodes_next_hop_is_not_known(balancer: Balancer, talk: Talk) -> None:
    balancer.set_slots(NODE_C)
    balancer.public(syn(talk)).must_be("no_neighbour", syn(talk))
    assert not balancer.flows.entries()
    assert not balancer.returns.entries()


@every_talk
def test_the_next_hop_is_lost_while_a_flow_is_open(balancer: Balancer, talk: Talk) -> None:
    balancer.public(syn(talk))
    balancer.set_node(NUMBERS[NODE_A], NODE_A, link=0)
    balancer.public(talk.from_client()).must_be("no_neighbour", talk.from_client())
    balancer.set_node(NUMBERS[NODE_A], NODE_A)
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())


@pytest.mark.parametrize("talk", TCP_ONLY, ids=talk_name)
def test_an_end_that_is_dropped_is_none(balancer: Balancer, talk: Talk) -> None:
    """The node has not heard of it."""
    balancer.public(syn(talk))
    for link, mtu, verdict in ((0, MTU, "no_neighbour"), (PRIVATE_LINK, 39, "too_big_quiet")):
        balancer.set_node(NUMBERS[NODE_A], NODE_A, link=link, mtu=mtu)
        balancer.public(talk.from_client("R")).must_be(verdict, talk.from_client("R"))
        assert [entry.flags & {"ended"} for entry in balancer.returns.entries()] == [frozenset()]
    balancer.set_node(NUMBERS[NODE_A], NODE_A)
    balancer.public(talk.from_client("R")).must_be("forwarded", talk.to_node("R"))
    assert [entry.flags & {"ended"} for entry in balancer.returns.entries()] == [{"ended"}]


@every_talk
def test_the_node_has_no_ipv6_address(balancer: Balancer, talk: Talk) -> None:
    balancer.set_node(NUMBERS[NODE_A], NODE_A, address6="")
    if talk.version == 6:
        balancer.public(syn(talk)).must_be("no_address6", syn(talk))
        assert not balancer.returns.entries()
    else:
        balancer.public(syn(talk)).must_be("opened", talk.to_node("S"))


def opens_again(talk: Talk) -> Packet:
    """The kernel answers TCP with a reset; a datagram is as good as a first one."""
    return talk.from_client("S" if talk.tcp else "A")


@every_talk
def test_the_flows_node_is_gone(balancer: Balancer, talk: Talk) -> None:
    balancer.public(syn(talk))
    balancer.private(talk.from_node("SA"))
    balancer.set_slots(NODE_B)
    balancer.maps.clear_node(NUMBERS[NODE_A])
    if talk.tcp:
        balancer.public(talk.from_client()).must_be("node_gone", talk.from_client())
    balancer.public(opens_again(talk)).must_be("opened", talk.to_node("S", node=NODE_B))
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node(node=NODE_B))


@every_talk
def test_the_flows_node_number_belongs_to_another_node(balancer: Balancer, talk: Talk) -> None:
    """Its birth tells them apart."""
    balancer.public(syn(talk))
    balancer.set_node(NUMBERS[NODE_A], NODE_B)
    if talk.tcp:
        balancer.public(talk.from_client()).must_be("node_gone", talk.from_client())
    balancer.public(opens_again(talk)).must_be("opened", talk.to_node("S", node=NODE_B))
    assert [entry.birth for entry in balancer.flows.entries()] == [1]
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node(node=NODE_B))


@every_talk
def test_a_node_that_comes_back_has_its_flows(balancer: Balancer, talk: Talk) -> None:
    balancer.public(syn(talk))
    balancer.maps.clear_node(NUMBERS[NODE_A])
    balancer.set_slots(None)
    expected = "node_gone" if talk.tcp else "no_node"
    balancer.public(talk.from_client()).must_be(expected, talk.from_client())
    balancer.reset_nodes()
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())


@every_talk
def test_a_flow_stays_with_its_node_when_the_slots_change(balancer: Balancer, talk: Talk) -> None:
    """So it does while that node drains: nobody routes to it any more, and it is still there."""
    balancer.public(syn(talk))
    for owner in (NODE_B, None, NODE_C, NODE_A):
        balancer.set_slots(owner)
        balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())
        balancer.public(syn(talk)).must_be("forwarded", talk.to_node("S"))
        balancer.private(talk.from_node()).must_be("returned", talk.to_client())


@pytest.mark.parametrize("talk", TCP_ONLY, ids=talk_name)
def test_while_tables_are_converted_a_flow_may_only_seem_to_be_missing(balancer: Balancer, talk: Talk) -> None:
    """TCP sends again what is dropped; what is passed is answered with a reset."""
    balancer.public(syn(talk))
    for until, verdict in ((balancer.jiffies(1), "taking_over"), (balancer.jiffies(-1), "no_flow"), (0, "no_flow")):
        balancer.table("takeover").update(0, until)
        stranger = talk.from_client(sport=SPORT + 1)
        balancer.public(stranger).must_be(verdict, stranger)
        balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())
    balancer.table("takeover").update(0, balancer.jiffies(1))
    balancer.public(talk.from_client("S", sport=7)).must_be("opened", talk.to_node("S", sport=7))


@pytest.mark.parametrize("talk", UDP_ONLY, ids=talk_name)
def test_a_datagram_without_a_checksum_is_left_without_one(balancer: Balancer, talk: Talk) -> None:
    """RFC 768; and RFC 6936 in IPv6."""

    def bare(packet: Packet) -> Packet:
        packet[UDP].chksum = 0
        return packet

    balancer.public(bare(syn(talk))).must_be("opened", bare(talk.to_node("S")))
    balancer.public(bare(talk.from_client())).must_be("forwarded", bare(talk.to_node()))
    balancer.private(bare(talk.from_node())).must_be("returned", bare(talk.to_client()))
