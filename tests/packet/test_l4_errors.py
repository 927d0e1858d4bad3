"""ICMP errors in mode l4: each reaches whoever sent the packet that it quotes, quoted as that one sent it.

Scapy works out every checksum of what is expected: outside, of ICMP, and inside.
"""

from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.packet import Packet

from tests.packet.balancer import NUMBERS, Balancer
from tests.packet.packets import (
    CLIENT,
    HEADER,
    NEIGHBOUR,
    NODE_A,
    NODE_MACS,
    NOT_A_VIP,
    PRIVATE_MAC,
    PUBLIC_MAC,
    ROUTER,
    ROUTER_MAC,
    SOURCE,
    SPORT,
    TALKS,
    VIP,
    Talk,
    packet_of,
    talk_name,
)

KINDS = {
    4: {"unreachable": (3, 1), "fragmentation needed": (3, 4), "time exceeded": (11, 0), "parameter problem": (12, 0)},
    6: {"unreachable": (1, 4), "packet too big": (2, 0), "time exceeded": (3, 0), "parameter problem": (4, 1)},
}
FIRST_PORTS = 8
"""Bytes of a transport header that are always quoted (RFC 792)."""
PORT_CHANGED = SPORT + 1

Quote = Callable[[Talk, Packet], bytes]


def whole(_: Talk, packet: Packet) -> bytes:
    return bytes(packet_of(packet))


def cut(missing: int) -> Quote:
    """Without some of the transport header, of which TCP has 20 bytes."""
    return lambda talk, packet: bytes(packet_of(packet))[: HEADER[talk.version] + 20 - missing]


def as_first_fragment(talk: Talk, packet: Packet) -> bytes:
    """Its sender's, with the ports in it."""
    return bytes(packet_of(talk.fragments(packet)[0]))


QUOTES: dict[str, Quote] = {
    "whole": whole,
    "8 bytes behind its IP header": cut(20 - FIRST_PORTS),
    "all before its checksum": cut(4),
    "just its checksum": cut(2),
    "first fragment": as_first_fragment,
}

every_talk = pytest.mark.parametrize("talk", TALKS, ids=talk_name)
every_quote = pytest.mark.parametrize("quote", QUOTES.values(), ids=QUOTES.keys())
every_kind = pytest.mark.parametrize(
    ("talk", "kind"),
    [(talk, kind) for talk in TALKS for kind in KINDS[talk.version].values()],
    ids=[f"{talk_name(talk)}, {name}" for talk in TALKS for name in KINDS[talk.version]],
)


def reported(talk: Talk, quoted: Packet | bytes, *, who: str = ROUTER, to: str = VIP, **more: Any) -> Packet:
    """From somewhere in the network, as it arrives on the public side."""
    return talk.error((ROUTER_MAC, PUBLIC_MAC), (who, to), quoted, **{"ttl": 64, **more})


def told_to_node(talk: Talk, quoted: Packet | bytes, **more: Any) -> Packet:
    return talk.error((PRIVATE_MAC, NODE_MACS[NODE_A]), (SOURCE, NODE_A), quoted, **{"ttl": 63, **more})


def reported_back(talk: Talk, quoted: Packet | bytes, *, who: str = NODE_A, to: str = SOURCE, **more: Any) -> Packet:
    """From a node or a router beyond, as it arrives on the private side."""
    return talk.error((NODE_MACS[NODE_A], PRIVATE_MAC), (who, to), quoted, **{"ttl": 64, **more})


def told_to_client(talk: Talk, quoted: Packet | bytes, *, client: str = CLIENT, **more: Any) -> Packet:
    return talk.error((PUBLIC_MAC, ROUTER_MAC), (VIP, client), quoted, **{"ttl": 63, **more})


@pytest.fixture(params=TALKS, ids=talk_name)
def talk(request: pytest.FixtureRequest) -> Talk:
    """One flow each, whose port is the client's own."""
    found: Talk = request.param
    return found


@pytest.fixture
def flow(balancer: Balancer, talk: Talk) -> Balancer:
    balancer.public(talk.from_client("S"))
    balancer.private(talk.from_node("SA"))
    balancer.public(talk.from_client())
    return balancer


@every_kind
def test_of_every_kind(balancer: Balancer, talk: Talk, kind: tuple[int, int]) -> None:
    balancer.public(talk.from_client("S"))
    sent, seen = talk.from_node(payload=b"data"), talk.to_client(payload=b"data", ttl=64)
    balancer.public(reported(talk, whole(talk, seen), kind=kind)).must_be(
        "error_forwarded", told_to_node(talk, whole(talk, sent), kind=kind)
    )
    sent, seen = talk.from_client(payload=b"data"), talk.to_node(payload=b"data", ttl=64)
    balancer.private(reported_back(talk, whole(talk, seen), kind=kind)).must_be(
        "error_returned", told_to_client(talk, whole(talk, sent), kind=kind)
    )


@every_quote
def test_however_much_is_quoted(flow: Balancer, talk: Talk, quote: Quote) -> None:
    """An odd number of bytes, too: the rest of the payload is the same on both sides."""
    data = b"an odd number"
    sent, seen = talk.from_node(payload=data), talk.to_client(payload=data, ttl=64)
    flow.public(reported(talk, quote(talk, seen))).must_be("error_forwarded", told_to_node(talk, quote(talk, sent)))
    sent, seen = talk.from_client(payload=data), talk.to_node(payload=data, ttl=64)
    flow.private(reported_back(talk, quote(talk, seen))).must_be(
        "error_returned", told_to_client(talk, quote(talk, sent))
    )


@pytest.mark.parametrize("talk", [talk for talk in TALKS if talk.tcp], ids=talk_name)
def test_half_a_checksum_stays_as_it_is(flow: Balancer, talk: Talk) -> None:
    """The other half is not there to carry into. What covers it all, ICMP's own checksum, is right."""
    half = cut(3)
    sent, seen = half(talk, talk.from_node()), half(talk, talk.to_client(ttl=64))
    flow.public(reported(talk, seen)).must_be("error_forwarded", told_to_node(talk, sent[:-1] + seen[-1:]))


def test_what_is_quoted_has_fewer_hops_left(flow: Balancer, talk: Talk) -> None:
    """As whoever reports saw it; that stays."""
    sent, seen = (whole(talk, make(ttl=1)) for make in (talk.from_node, talk.to_client))
    flow.public(reported(talk, seen)).must_be("error_forwarded", told_to_node(talk, sent))


def test_what_is_quoted_has_options_or_an_extension_header(flow: Balancer, talk: Talk) -> None:
    some = {"options": [IPOption_NOP()] * 4} if talk.version == 4 else {"between": IPv6ExtHdrDestOpt()}
    sent, seen = (whole(talk, make(ttl=9, **some)) for make in (talk.from_node, talk.to_client))
    flow.public(reported(talk, seen)).must_be("error_forwarded", told_to_node(talk, sent))
    sent, seen = (whole(talk, make(ttl=9, **some)) for make in (talk.from_client, talk.to_node))
    flow.private(reported_back(talk, seen)).must_be("error_returned", told_to_client(talk, sent))


def test_the_error_has_options_or_an_extension_header(flow: Balancer, talk: Talk) -> None:
    some = {"options": [IPOption_NOP()] * 4} if talk.version == 4 else {"between": IPv6ExtHdrDestOpt()}
    sent, seen = whole(talk, talk.from_node()), whole(talk, talk.to_client(ttl=64))
    flow.public(reported(talk, seen, **some)).must_be("error_forwarded", told_to_node(talk, sent, **some))


def test_of_a_datagram_without_a_checksum(balancer: Balancer) -> None:
    def bare(packet: Packet) -> bytes:
        packet[UDP].chksum = 0
        return bytes(packet[IP])

    talk = Talk(4, "udp")
    balancer.public(talk.from_client())
    sent, seen = bare(talk.from_node()), bare(talk.to_client(ttl=64))
    balancer.public(reported(talk, seen)).must_be("error_forwarded", told_to_node(talk, sent))
    sent, seen = bare(talk.from_client()), bare(talk.to_node(ttl=64))
    balancer.private(reported_back(talk, seen)).must_be("error_returned", told_to_client(talk, sent))


def test_of_a_flow_whose_port_is_not_its_clients(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client("S", client=NEIGHBOUR))
    balancer.public(talk.from_client("S"))
    (port,) = (entry.source_port for entry in balancer.flows.entries() if entry.client == talk.address(CLIENT))
    sent, seen = whole(talk, talk.from_node(dport=port)), whole(talk, talk.to_client(ttl=64))
    balancer.public(reported(talk, seen)).must_be("error_forwarded", told_to_node(talk, sent))
    sent, seen = whole(talk, talk.from_client()), whole(talk, talk.to_node(sport=port, ttl=64))
    balancer.private(reported_back(talk, seen)).must_be("error_returned", told_to_client(talk, sent))


def test_from_a_router_between_load_balancer_and_node(flow: Balancer, talk: Talk) -> None:
    """To the client it comes from the service: nobody else it knows."""
    sent, seen = (whole(talk, make(ttl=3)) for make in (talk.from_client, talk.to_node))
    flow.private(reported_back(talk, seen, who=ROUTER)).must_be("error_returned", told_to_client(talk, sent))


def test_one_hop_left(flow: Balancer, talk: Talk) -> None:
    there = reported(talk, whole(talk, talk.to_client()), ttl=1)
    flow.public(there).must_be("ttl_expired", there)
    back = reported_back(talk, whole(talk, talk.to_node()), ttl=1)
    flow.private(back).must_be("ttl_expired", back)


def test_about_no_flow(balancer: Balancer, talk: Talk) -> None:
    there = reported(talk, whole(talk, talk.to_client()))
    balancer.public(there).must_be("unrelated_error", there)
    back = reported_back(talk, whole(talk, talk.to_node()))
    balancer.private(back).must_be("not_a_reply", back)


def test_about_another_flow(flow: Balancer, talk: Talk) -> None:
    for seen in (
        talk.to_client(dport=PORT_CHANGED),
        talk.to_client(client=NEIGHBOUR),
        talk.to_client(source=NOT_A_VIP),
    ):
        there = reported(talk, whole(talk, seen))
        flow.public(there).must_be("unrelated_error", there)
    for seen in (talk.to_node(sport=PORT_CHANGED), talk.to_node(dport=PORT_CHANGED)):
        back = reported_back(talk, whole(talk, seen))
        flow.private(back).must_be("not_a_reply", back)


def test_to_somebody_else(flow: Balancer, talk: Talk) -> None:
    """An error goes to the address whose packet it quotes."""
    there = reported(talk, whole(talk, talk.to_client()), to=NOT_A_VIP)
    flow.public(there).must_be("unrelated_error", there)
    back = reported_back(talk, whole(talk, talk.to_node()), to=CLIENT)
    flow.private(back).must_be("not_a_reply", back)


@pytest.mark.parametrize("bytes_left", [0, 7, 19])
def test_too_little_is_quoted(flow: Balancer, talk: Talk, bytes_left: int) -> None:
    quoted = whole(talk, talk.to_client())[
        : bytes_left + (HEADER[talk.version] if bytes_left == FIRST_PORTS - 1 else 0)
    ]
    there = reported(talk, quoted)
    flow.public(there).must_be("unrelated_error", there)
    back = reported_back(talk, quoted)
    flow.private(back).must_be("not_a_reply", back)


def test_a_later_fragment_is_quoted(flow: Balancer, talk: Talk) -> None:
    """It has no ports, so nobody can tell whose it was."""
    there = reported(talk, bytes(packet_of(talk.fragments(talk.to_client(payload=bytes(64)))[1])))
    flow.public(there).must_be("unrelated_error", there)


def test_an_error_in_fragments_is_the_kernels(flow: Balancer, talk: Talk) -> None:
    for part in talk.fragments(reported(talk, whole(talk, talk.to_client()))):
        flow.public(part).must_be("other_protocol", part)


def test_the_node_is_gone(flow: Balancer, talk: Talk) -> None:
    there = reported(talk, whole(talk, talk.to_client()))
    flow.set_node(NUMBERS[NODE_A], NODE_A, link=0)
    flow.public(there).must_be("no_neighbour", there)
    flow.maps.clear_node(NUMBERS[NODE_A])
    flow.public(there).must_be("node_gone", there)


def test_they_leave_no_flow_behind(flow: Balancer, talk: Talk) -> None:
    """Nor do they change one: anybody can forge them."""
    before = [flow.flows.memory.tobytes(), flow.returns.memory.tobytes()]
    flow.public(reported(talk, whole(talk, talk.to_client())))
    flow.private(reported_back(talk, whole(talk, talk.to_node())))
    assert [flow.flows.memory.tobytes(), flow.returns.memory.tobytes()] == before
