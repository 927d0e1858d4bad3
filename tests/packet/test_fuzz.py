"""Frames that nobody should send, against the oracle: nothing aborts, and nothing is forwarded that it would not."""

import ipaddress
import random
import struct

from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from tests.packet.balancer import SETTINGS, Balancer
from tests.packet.oracle import Oracle, ones_complement_sum
from tests.packet.packets import (
    ETHERNET,
    IPV4,
    IPV4_AND_TCP,
    NODE_A,
    NODE_B,
    NODE_MACS,
    NOT_A_VIP,
    SECOND_VIP,
    SOURCE,
    SPORT,
    VIP,
    WEB,
    WEB_ON_NODES,
    from_client,
    from_node,
)

FRAMES = 20_000

FROM_CLIENTS = [
    bytes(packet)
    for packet in (
        from_client("S"),
        from_client("A"),
        from_client("A", payload=b"hello"),
        from_client("S", to=SECOND_VIP),
        from_client("S", to=NOT_A_VIP),
        from_client("S", options=[IPOption_NOP()] * 8),
        Ether() / ARP(),
        Ether() / Dot1Q() / IP(dst=VIP),
        Ether() / IP(dst=VIP) / UDP(dport=WEB),
    )
]
FROM_NODES = [
    bytes(packet)
    for packet in (
        from_node("SA"),
        from_node("A", payload=b"hello"),
        from_node("A", options=[IPOption_NOP()] * 8),
        from_node("A", node=NODE_B),
        Ether() / Dot1Q() / IP(dst=SOURCE),
    )
]
INTERESTING = [0, 1, 4, 5, 6, 0x0F, 0x45, 0x46, 0x4F, 0x7F, 0x80, 0xFF]


def mutate(frame: bytes, shortest: int) -> bytes:
    """A few bytes of the headers changed; sometimes shorter, sometimes longer."""
    data = bytearray(frame)
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        data[random.randrange(min(len(data), IPV4_AND_TCP))] = random.choice((random.randrange(256), *INTERESTING))
    match random.randrange(8):
        case 0:
            del data[random.randrange(shortest, len(data) + 1) :]
        case 1:
            data += random.randbytes(random.randrange(64))
    return bytes(data)


def check_forwarded(frame: bytes, sent: bytes) -> None:
    assert sent[:6].hex(":") in NODE_MACS.values()
    assert ipaddress.ip_address(sent[26:30]) == ipaddress.ip_address(SOURCE)
    check_rewritten(frame, sent)


def check_rewritten(frame: bytes, sent: bytes) -> None:
    """One hop less; all that is no address, port or checksum is as it came; checksums are as right as they were."""
    header = 14 + (frame[14] & 15) * 4
    assert sent[22] == frame[22] - 1
    assert sent[12:22] + sent[23:24] == frame[12:22] + frame[23:24]
    assert sent[34:header] == frame[34:header]
    assert sent[header + 4 : header + 16] == frame[header + 4 : header + 16]
    assert sent[header + 18 :] == frame[header + 18 :]
    assert ones_complement_sum(sent[14:header]) % 0xFFFF == ones_complement_sum(frame[14:header]) % 0xFFFF
    assert tcp_sum(sent, header) == tcp_sum(frame, header)


def tcp_sum(frame: bytes, header: int) -> int:
    """Modulo 0xffff, 0 for a right checksum."""
    (total,) = struct.unpack("!H", frame[16:18])
    segment = frame[header : 14 + total]
    return ones_complement_sum(frame[26:34] + struct.pack("!HH", 6, len(segment)) + segment) % 0xFFFF


def test_public_side(balancer: Balancer) -> None:
    """pytest-randomly seeds `random`, and prints the seed."""
    oracle = Oracle(frozenset((listener.address, listener.port) for listener in SETTINGS.listeners))
    for _ in range(FRAMES):
        frame = mutate(random.choice(FROM_CLIENTS), ETHERNET)
        outcome = balancer.public(frame)
        assert outcome.verdict in oracle.verdicts(frame), frame.hex()
        if outcome.verdict in ("forwarded", "opened"):
            check_forwarded(frame, outcome.packet)
        else:
            assert outcome.packet == frame


def test_private_side(balancer: Balancer) -> None:
    """The kernel makes no test run of TC with less than an IPv4 header."""
    balancer.public(from_client("S"))
    oracle = Oracle(frozenset())
    for _ in range(FRAMES):
        frame = mutate(random.choice(FROM_NODES), IPV4)
        outcome = balancer.private(frame)
        assert outcome.verdict == oracle.verdict_of_answer(frame, {(NODE_A, WEB_ON_NODES, SOURCE, SPORT)}), frame.hex()
        if outcome.verdict == "returned":
            check_rewritten(frame, outcome.packet)
            assert ipaddress.ip_address(outcome.packet[26:30]) == ipaddress.ip_address(VIP)
        else:
            assert outcome.packet == frame
