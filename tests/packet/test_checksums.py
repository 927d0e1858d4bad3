"""Incremental checksums are what a full sum gives, also where one's complement has two zeroes."""

import struct
import sys
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.packet.balancer import Balancer
from tests.packet.oracle import ones_complement_sum
from tests.packet.packets import (
    CLIENT,
    NODE_A,
    SOURCE,
    TALKS,
    Talk,
    from_client,
    talk_name,
    to_node,
)

PORTS = st.integers(1, 65535)
ADDRESSES = {4: st.ip_addresses(v=4).map(str), 6: st.ip_addresses(v=6).map(str)}
WORDS = st.integers(0, 65535)

many = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
either = pytest.mark.parametrize("verified", [False, True], ids=["unknown", "verified by the card"])
every_talk = pytest.mark.parametrize("talk", TALKS, ids=talk_name)


@either
@every_talk
@many
@given(data=st.data(), sport=PORTS, ttl=st.integers(2, 255), payload=st.binary(max_size=64))
def test_both_ways(
    balancer: Balancer, talk: Talk, verified: bool, data: st.DataObject, sport: int, ttl: int, payload: bytes
) -> None:
    """Scapy works out the expected checksums from nothing."""
    balancer.forget_flows()
    client = data.draw(ADDRESSES[talk.version])
    same: dict[str, Any] = {"payload": payload, "id": data.draw(WORDS)}
    there = talk.from_client("S", client=client, sport=sport, ttl=ttl, **same)
    balancer.public(there).must_be("opened", talk.to_node("S", sport=sport, ttl=ttl - 1, **same))
    back = talk.from_node("SA", dport=sport, ttl=ttl, **same)
    wanted = talk.to_client("SA", client=client, dport=sport, ttl=ttl - 1, **same)
    balancer.private(back, verified).must_be("returned", wanted)


FREE: dict[type[Packet], str] = {IP: "id", TCP: "window"}
"""A field of a header that nobody looks at; UDP has none, so there it is the data."""


def tuned(packet: Packet, layer: type[Packet], checksum: int) -> bytes:
    """The packet with a free field chosen such that a checksum comes out as asked."""
    return bytes(with_free(packet, layer, (checksum_with(packet, layer, 0) - checksum) % 0xFFFF))


def checksum_with(packet: Packet, layer: type[Packet], free: int) -> int:
    return int(Ether(bytes(with_free(packet, layer, free)))[layer].chksum) % 0xFFFF


def with_free(packet: Packet, layer: type[Packet], free: int) -> Packet:
    packet = packet.copy()
    packet[layer].chksum = None
    if layer in FREE:
        packet[layer].setfieldval(FREE[layer], free)
    else:
        packet[layer].remove_payload()
        packet = packet / struct.pack("!H", free)
    return packet


def layers(talk: Talk) -> list[type[Packet]]:
    """With a checksum."""
    return [*([IP] if talk.version == 4 else []), TCP if talk.tcp else UDP]


def recomputed(frame: bytes) -> bytes:
    packet = Ether(frame)
    for layer in (IP, TCP, UDP):
        if layer in packet:
            packet[layer].chksum = None
    return bytes(packet)


@every_talk
@many
@given(before=st.integers(0, 0xFFFE))
@example(before=0x0000)
@example(before=0x0001)
@example(before=0xFFFE)
def test_every_checksum_a_packet_may_come_with(balancer: Balancer, talk: Talk, before: int) -> None:
    """0xffff is none of them: no header sums to zero. Of UDP it is what zero is sent as."""
    balancer.public(talk.from_client("S"))
    for layer in layers(talk):
        there = balancer.public(tuned(talk.from_client(), layer, before))
        assert there.verdict == "forwarded"
        assert there.packet == recomputed(there.packet)
        for verified in (False, True):
            back = balancer.private(tuned(talk.from_node(), layer, before), verified)
            assert back.verdict == "returned"
            assert back.packet == recomputed(back.packet)


def test_a_sum_that_has_to_be_folded_three_times(balancer: Balancer) -> None:
    """A carry can be left after the second fold only where the sum comes to next to nothing: 1, as a loaded word."""
    after = int.from_bytes((0xFFFF ^ 1).to_bytes(2, sys.byteorder), "big")
    identification = Ether(tuned(to_node("S"), IP, after))[IP].id
    header = bytes(from_client("S", id=identification))[14:34]
    clients = map(IPv4Address, range(int(IPv4Address("198.18.0.0")), int(IPv4Address("198.20.0.0"))))
    client = next(str(client) for client in clients if carries_twice(header, client))
    there = from_client("S", client=client, id=identification)
    balancer.public(there).must_be("opened", to_node("S", id=identification))


def carries_twice(header: bytes, client: IPv4Address) -> bool:
    """The sum of bpf/csum.h for this client's IPv4 header, whose words are added as this machine loads them."""
    header = header[:10] + bytes(2) + client.packed + header[16:]
    checksum = struct.pack("!H", 0xFFFF ^ ones_complement_sum(header))
    total = (0xFFFF ^ native(checksum)) + (0xFFFF ^ native(b"\1\0"))
    for old, new in ((header[12:16], SOURCE), (header[16:20], NODE_A)):
        total += (0xFFFFFFFF ^ native(old)) + native(IPv4Address(new).packed)
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    return total > 0xFFFF


def native(word: bytes) -> int:
    return int.from_bytes(word, sys.byteorder)


@every_talk
@many
@given(after=st.integers(0, 0xFFFE))
@example(after=0x0000)
@example(after=0xFFFE)
def test_every_checksum_a_packet_may_leave_with(balancer: Balancer, talk: Talk, after: int) -> None:
    """Of UDP zero would say that there is none: it is sent as 0xffff (RFC 768)."""
    balancer.public(talk.from_client("S"))
    for layer in layers(talk):
        free = (checksum_with(talk.to_node(), layer, 0) - after) % 0xFFFF
        outcome = balancer.public(with_free(talk.from_client(), layer, free))
        assert Ether(outcome.packet)[layer].chksum == (after or (0xFFFF if layer is UDP else 0))
        free = (checksum_with(talk.to_client(), layer, 0) - after) % 0xFFFF
        for verified in (False, True):
            outcome = balancer.private(with_free(talk.from_node(), layer, free), verified)
            assert Ether(outcome.packet)[layer].chksum == (after or (0xFFFF if layer is UDP else 0))


@many
@given(ip=WORDS, tcp=WORDS)
def test_a_wrong_checksum_stays_wrong(balancer: Balancer, ip: int, tcp: int) -> None:
    """By as much as it was: the receiver, not the load balancer, refuses it."""
    balancer.public(from_client("S"))
    packet = from_client("A")
    packet[IP].chksum, packet[TCP].chksum = ip, tcp
    frame = bytes(packet)
    outcome = balancer.public(frame)
    assert outcome.verdict == "forwarded"
    assert error_of_ip(outcome.packet) == error_of_ip(frame)
    assert error_of_tcp(outcome.packet) == error_of_tcp(frame)


def error_of_ip(frame: bytes) -> int:
    """0 for a right checksum."""
    return ones_complement_sum(frame[14:34]) % 0xFFFF


def error_of_tcp(frame: bytes) -> int:
    segment = frame[34:]
    return ones_complement_sum(frame[26:34] + struct.pack("!HH", 6, len(segment)) + segment) % 0xFFFF


def test_the_oracle_can_tell() -> None:
    frame = bytes(from_client("A"))
    assert error_of_ip(frame) == error_of_tcp(frame) == 0
    assert error_of_ip(frame[:22] + b"\x07" + frame[23:]) != 0
    assert error_of_tcp(frame[:-1] + b"\x07") != 0
    assert Ether(frame)[IP].src == CLIENT
