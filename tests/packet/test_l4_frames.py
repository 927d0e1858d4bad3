"""What may be special about a frame in mode l4: it is a fragment, it is in a VLAN, or it is too big."""

from collections.abc import Sequence
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from gale.dataplane import jiffies
from tests.packet.balancer import MTU, NUMBERS, Balancer, Outcome
from tests.packet.direct import on_one_cpu
from tests.packet.packets import (
    CLIENT,
    HEADER,
    NEIGHBOUR,
    NODE_A,
    PUBLIC_MAC,
    ROUTER_MAC,
    SPORT,
    TALKS,
    VIP,
    Talk,
    packet_of,
    talk_name,
)

DATA = bytes(range(120))
FRAGMENTS_LIVE_S = 30
ANSWERS_PER_S = 1000
QUOTED = {4: 128, 6: 1232}
"""Bytes of a packet that is too big, in the answer."""
TRANSPORT = {"tcp": 20, "udp": 8}

TAGS: dict[str, Sequence[Packet]] = {
    "none": (),
    "one": (Dot1Q(vlan=7, prio=3),),
    "one of a provider": (Dot1AD(vlan=8, dei=1),),
    "two": (Dot1Q(vlan=8), Dot1Q(vlan=7)),
    "a provider's and one": (Dot1AD(vlan=8), Dot1Q(vlan=7)),
}

every_talk = pytest.mark.parametrize("talk", TALKS, ids=talk_name)
every_tag = pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS.keys())
every_hop = pytest.mark.parametrize("vlan", [0, 9], ids=["to untagged", "to tagged"])


def must_both_be(outcomes: Sequence[Outcome], verdict: str, expected: Sequence[Packet]) -> None:
    for outcome, packet in zip(outcomes, expected, strict=True):
        outcome.must_be(verdict, packet)


# Fragments


@every_talk
def test_fragments_follow_their_first(balancer: Balancer, talk: Talk) -> None:
    """In both directions; the checksum in the first covers the whole."""
    balancer.public(talk.from_client("S"))
    there = talk.fragments(talk.from_client(payload=DATA))
    must_both_be([balancer.public(part) for part in there], "forwarded", talk.fragments(talk.to_node(payload=DATA)))
    back = talk.fragments(talk.from_node(payload=DATA))
    must_both_be([balancer.private(part) for part in back], "returned", talk.fragments(talk.to_client(payload=DATA)))


@pytest.mark.parametrize("talk", [talk for talk in TALKS if not talk.tcp], ids=talk_name)
def test_a_first_fragment_opens_a_flow(balancer: Balancer, talk: Talk) -> None:
    first, last = talk.fragments(talk.from_client(payload=DATA))
    expected = talk.fragments(talk.to_node(payload=DATA))
    balancer.public(first).must_be("opened", expected[0])
    balancer.public(last).must_be("forwarded", expected[1])


@every_talk
def test_fragments_of_a_flow_whose_port_is_not_its_clients(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client("S", client=NEIGHBOUR))
    balancer.public(talk.from_client("S"))
    (port,) = (entry.source_port for entry in balancer.flows.entries() if entry.client == talk.address(CLIENT))
    assert port != SPORT
    there = talk.fragments(talk.from_client(payload=DATA))
    expected = talk.fragments(talk.to_node(sport=port, payload=DATA))
    must_both_be([balancer.public(part) for part in there], "forwarded", expected)


@every_talk
def test_a_fragment_that_overtakes_its_first(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client("S"))
    first, last = talk.fragments(talk.from_client(payload=DATA))
    balancer.public(last).must_be("later_fragment", last)
    assert balancer.public(first).verdict == "forwarded"
    assert balancer.public(last).verdict == "forwarded"
    first, last = talk.fragments(talk.from_node(payload=DATA))
    balancer.private(last).must_be("not_a_reply", last)
    assert balancer.private(first).verdict == "returned"
    assert balancer.private(last).verdict == "returned"


@every_talk
@pytest.mark.parametrize("field", ["id", "src", "dst"])
def test_a_fragment_of_another_packet(balancer: Balancer, talk: Talk, field: str) -> None:
    balancer.public(talk.from_client("S"))
    first, last = talk.fragments(talk.from_client(payload=DATA))
    assert balancer.public(first).verdict == "forwarded"
    layer = packet_of(last)
    if field == "id":
        (layer if talk.version == 4 else layer.payload).setfieldval("id", 8)
    else:
        layer.setfieldval(field, talk.address(NEIGHBOUR))
    last = Ether(bytes(last))
    balancer.public(last).must_be("later_fragment", last)


@every_talk
def test_a_first_fragment_is_forgotten(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client("S"))
    first, last = talk.fragments(talk.from_client(payload=DATA))
    balancer.public(first)
    table = balancer.table("fragments")
    for key, seen in table.entries():
        seen.seen -= (FRAGMENTS_LIVE_S - 1) * jiffies.per_second()
        table[key] = seen
    assert balancer.public(last).verdict == "forwarded"
    for key, seen in table.entries():
        seen.seen -= 2 * jiffies.per_second()
        table[key] = seen
    balancer.public(last).must_be("later_fragment", last)


@every_talk
def test_a_first_fragment_too_short_for_its_ports(balancer: Balancer, talk: Talk) -> None:
    first, _ = talk.fragments(talk.from_client("S", payload=DATA), cut=8 if talk.tcp else 0)
    balancer.public(first).must_be("malformed", first)


# VLANs


@every_hop
@every_tag
@every_talk
def test_a_frame_leaves_with_the_tag_of_its_hop(
    balancer: Balancer, talk: Talk, tags: tuple[Packet, ...], vlan: int
) -> None:
    balancer.set_node(NUMBERS[NODE_A], NODE_A, vlan=vlan)
    hop = (Dot1Q(vlan=vlan),) if vlan else ()
    balancer.public(talk.from_client("S", tags=tags)).must_be("opened", talk.to_node("S", tags=hop))
    balancer.public(talk.from_client(tags=tags)).must_be("forwarded", talk.to_node(tags=hop))
    seen = bytes(packet_of(talk.to_client(ttl=64)))
    error = talk.error((ROUTER_MAC, PUBLIC_MAC), (NEIGHBOUR, VIP), seen, tags=tags)
    assert balancer.public(error).packet[: 14 + 4 * bool(vlan)] == bytes(talk.to_node(tags=hop))[: 14 + 4 * bool(vlan)]


@every_hop
@every_tag
@every_talk
def test_an_answer_leaves_with_the_tags_of_its_client(
    balancer: Balancer, talk: Talk, tags: tuple[Packet, ...], vlan: int
) -> None:
    """The kernel keeps the outer one beside the frame, where a test run does not show it; test_live.py sees it."""
    balancer.public(talk.from_client("S", tags=tags))
    hop = (Dot1Q(vlan=vlan),) if vlan else ()
    inside = tuple(Dot1Q(vlan=tag.vlan) for tag in tags[1:])
    balancer.private(talk.from_node("SA", tags=hop)).must_be("returned", talk.to_client("SA", tags=inside))


@every_talk
def test_a_client_is_answered_where_its_last_frames_came_from(balancer: Balancer, talk: Talk) -> None:
    """Its next hop may change: another router, another VLAN. Looked at once a second at most."""
    balancer.public(talk.from_client("S", tags=TAGS["two"]))
    balancer.private(talk.from_node("SA")).must_be("returned", talk.to_client("SA", tags=(Dot1Q(vlan=7),)))
    balancer.public(talk.from_client())
    moved = talk.from_client()
    moved[Ether].src = "02:00:00:00:01:77"
    expected = talk.to_client()
    expected[Ether].dst = "02:00:00:00:01:77"
    balancer.quiet(2)
    balancer.public(moved)
    balancer.private(talk.from_node()).must_be("returned", expected)


@every_tag
def test_what_is_for_no_service_keeps_its_tags(balancer: Balancer, tags: tuple[Packet, ...]) -> None:
    for talk in TALKS:
        frame = talk.from_client(dport=9, tags=tags)
        balancer.public(frame).must_be("no_service", frame)


# Too big


def sized(talk: Talk, size: int, flags: str = "A", **more: Any) -> Packet:
    """Of the client, with so many bytes in its IP packet."""
    return talk.from_client(flags, payload=bytes(size - HEADER[talk.version] - TRANSPORT[talk.protocol]), **more)


def answer(talk: Talk, packet: Packet, tags: Sequence[Packet] = ()) -> Packet:
    """To a packet that is too big: what fits, and the start of it."""
    frame = Ether(src=PUBLIC_MAC, dst=ROUTER_MAC)
    for tag in tags:
        frame = frame / tag.copy()
    quoted = bytes(packet_of(packet))[: QUOTED[talk.version]]
    ends = {"src": talk.address(VIP), "dst": talk.address(CLIENT)}
    if talk.version == 4:
        head = IP(**ends, id=0, ttl=64, tos=0xC0) / ICMP(type=3, code=4, reserved=0, length=0, nexthopmtu=MTU)
    else:
        head = IPv6(**ends, hlim=64, tc=0xC0) / ICMPv6PacketTooBig(mtu=MTU)
    return frame / head / quoted


@every_tag
@every_talk
def test_what_does_not_fit_the_way_to_the_node_is_answered(
    balancer: Balancer, talk: Talk, tags: tuple[Packet, ...]
) -> None:
    balancer.public(talk.from_client("S", tags=tags))
    balancer.public(sized(talk, MTU, tags=tags)).must_be("forwarded", talk.to_node(payload=bytes(room(talk))))
    packet = sized(talk, MTU + 1, tags=tags)
    balancer.public(packet).must_be("too_big", answer(talk, packet, tags))


def room(talk: Talk) -> int:
    """For data, in the largest packet that fits."""
    return MTU - HEADER[talk.version] - TRANSPORT[talk.protocol]


@every_talk
def test_what_does_not_fit_opens_no_flow(balancer: Balancer, talk: Talk) -> None:
    packet = sized(talk, MTU + 1, "S")
    balancer.public(packet).must_be("too_big", answer(talk, packet))
    assert not balancer.flows.entries()
    assert not balancer.returns.entries()


def test_not_everybody_is_answered_at_once(balancer: Balancer) -> None:
    """So many in a second, by each processor."""
    packet = sized(TALKS[0], MTU + 1, "S")
    with on_one_cpu():
        balancer.public(packet)
        table = balancer.table("answer_rate")
        leaves = table[0]
        for leaf in leaves:
            leaf.start, leaf.answers = balancer.jiffies(0), ANSWERS_PER_S - 1
        table.update(0, b"".join(map(bytes, leaves)))
        verdicts = [balancer.public(packet).verdict for _ in range(3)]
        assert verdicts == ["too_big", "too_big_quiet", "too_big_quiet"]
        for leaf in leaves:
            leaf.start, leaf.answers = balancer.jiffies(-1), ANSWERS_PER_S
        table.update(0, b"".join(map(bytes, leaves)))
        assert balancer.public(packet).verdict == "too_big"


@every_talk
def test_a_later_fragment_is_not_answered(balancer: Balancer, talk: Talk) -> None:
    balancer.set_node(NUMBERS[NODE_A], NODE_A, mtu=100)
    balancer.public(talk.from_client("S"))
    first, last = talk.fragments(talk.from_client(payload=bytes(200)))
    assert balancer.public(first).verdict == "forwarded"
    balancer.public(last).must_be("too_big_quiet", last)


@pytest.mark.parametrize("flags", ["", "DF"])
def test_whether_it_may_be_fragmented_does_not_matter(balancer: Balancer, flags: str) -> None:
    talk = TALKS[0]
    packet = sized(talk, MTU + 1, "S")
    packet[IP].flags = flags
    balancer.public(packet).must_be("too_big", answer(talk, packet))
