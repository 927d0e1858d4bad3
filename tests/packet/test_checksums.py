"""Incremental checksums are what a full sum gives, also where one's complement has two zeroes."""

import struct
import sys
from ipaddress import IPv4Address

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.packet.balancer import Balancer
from tests.packet.oracle import ones_complement_sum
from tests.packet.packets import CLIENT, NODE_A, SOURCE, from_client, from_node, to_client, to_node

PORTS = st.integers(1, 65535)
ADDRESSES = st.ip_addresses(v=4).map(str)
WORDS = st.integers(0, 65535)

many = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(client=ADDRESSES, sport=PORTS, identification=WORDS, ttl=st.integers(2, 255), payload=st.binary(max_size=64))
def test_both_ways(balancer: Balancer, client: str, sport: int, identification: int, ttl: int, payload: bytes) -> None:
    """Scapy works out the expected checksums from nothing."""
    balancer.forget_flows()
    there = from_client("S", client=client, sport=sport, id=identification, ttl=ttl, payload=payload)
    balancer.public(there).must_be("opened", to_node("S", sport=sport, id=identification, ttl=ttl - 1, payload=payload))
    back = from_node("SA", dport=sport, id=identification, ttl=ttl, payload=payload)
    expected = to_client("SA", client=client, dport=sport, id=identification, ttl=ttl - 1, payload=payload)
    balancer.private(back).must_be("returned", expected)


def tuned(packet: Packet, layer: type[Packet], checksum: int) -> bytes:
    """The packet with a free field (identification, window) chosen such that a checksum comes out as asked."""
    free = {IP: "id", TCP: "window"}[layer]
    packet[layer].setfieldval(free, 0)
    packet[layer].chksum = None
    at_zero = Ether(bytes(packet))[layer].chksum
    packet[layer].setfieldval(free, (at_zero - checksum) % 0xFFFF)
    tuned_packet = bytes(packet)
    assert Ether(tuned_packet)[layer].chksum == checksum
    return tuned_packet


def recomputed(frame: bytes) -> bytes:
    packet = Ether(frame)
    packet[IP].chksum = packet[TCP].chksum = None
    return bytes(packet)


@many
@given(before=st.integers(0, 0xFFFE))
@example(before=0x0000)
@example(before=0x0001)
@example(before=0xFFFE)
def test_every_checksum_a_packet_may_come_with(balancer: Balancer, before: int) -> None:
    """0xffff is none of them: no header sums to zero."""
    balancer.public(from_client("S"))
    for layer in (IP, TCP):
        there = balancer.public(tuned(from_client("A"), layer, before))
        assert there.verdict == "forwarded"
        assert there.packet == recomputed(there.packet)
        back = balancer.private(tuned(from_node("A"), layer, before))
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


@many
@given(after=st.integers(0, 0xFFFE))
@example(after=0x0000)
@example(after=0xFFFE)
def test_every_checksum_a_packet_may_leave_with(balancer: Balancer, after: int) -> None:
    balancer.public(from_client("S"))
    for layer in (IP, TCP):
        free = Ether(tuned(to_node("A"), layer, after))[layer]
        packet = from_client("A")
        if layer is IP:
            packet[IP].id = free.id
        else:
            packet[TCP].window = free.window
        outcome = balancer.public(packet)
        assert Ether(outcome.packet)[layer].chksum == after


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
