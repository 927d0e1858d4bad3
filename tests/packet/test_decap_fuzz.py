"""Bytes at random in a node's program, against a second one in Python that shares nothing with it."""

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from gale.dataplane.address import packed
from gale.dataplane.testrun import run_program
from tests.packet.oracle import ones_complement_sum
from tests.packet.tunnels import (
    ANY_SEGMENT,
    BALANCER,
    BALANCER6,
    CLIENT,
    CLIENT6,
    ETHER,
    NAMES,
    NODE,
    NODE6,
    SEGMENT,
    SEGMENT6,
    STRANGER,
    TAGS,
    TC_NEXT,
    VIP,
    VIP6,
    XDP_DROP,
    XDP_PASS,
    Node,
    raw,
    same,
    tunnelled,
)

FRAMES = 30_000
SEEDS = (1, 2)
DROPS = {"malformed", "ttl_expired", "congested"}
SEGMENTS = {packed(VIP): SEGMENT, packed(VIP6): SEGMENT6, packed(ANY_SEGMENT): 0}
LOAD_BALANCERS, OWN = {packed(BALANCER), packed(BALANCER6)}, {packed(NODE), packed(NODE6)}
SHORTEST = 54
"""The kernel runs TC programs on frames that hold an IP header only."""
TELLING = (0, 1, 2, 3, 4, 5, 6, 20, 40, 41, 0x45, 0x46, 0x60, 0x81, 0x88, 0xA8, 0xFF)
"""Bytes that mean something somewhere in these headers."""


@dataclass(frozen=True)
class Header:
    version: int
    length: int
    whole: int
    protocol: int | None
    ttl: int
    ecn: int
    source: bytes
    destination: bytes


def ip_at(frame: bytes) -> int | None:
    """Behind up to two tags."""
    at = 12
    for _ in range(2):
        if frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8") and len(frame) >= at + 6:
            at += 4
    return at + 2 if frame[at : at + 2] in (b"\x08\x00", b"\x86\xdd") else None


def header(data: bytes, version: int) -> Header | None:
    """`protocol` None: options, or a fragment."""
    size = {4: 20, 6: 40}[version]
    if len(data) < size or data[0] >> 4 != version:
        return None
    number = int.from_bytes(data[2:4], "big")
    if version == 4:
        plain = data[0] & 15 == 5 and not int.from_bytes(data[6:8], "big") & 0x3FFF
        protocol = data[9] if plain else None
        mapped = bytes(10) + b"\xff\xff"
        return Header(4, 20, number, protocol, data[8], data[1] & 3, mapped + data[12:16], mapped + data[16:20])
    payload = int.from_bytes(data[4:6], "big")
    return Header(6, 40, 40 + payload, data[6], data[7], data[1] >> 4 & 3, data[8:24], data[24:40])


def decapsulated(frame: bytes) -> tuple[str, bytes]:
    """The verdict, "" where nothing counts, and the frame."""
    at = ip_at(frame)
    outer = header(frame[at:], 4 if frame[at - 2] == 8 else 6) if at else None
    if at is None or outer is None or outer.protocol not in (4, 41):
        return "", frame
    if outer.destination not in OWN:
        return "not_this_node", frame
    if outer.source not in LOAD_BALANCERS:
        return "not_a_load_balancer", frame
    inside = frame[at + outer.length :]
    inner = header(inside, 6 if outer.protocol == 41 else 4)
    if inner is None:
        return "malformed", frame
    if inner.destination not in SEGMENTS:
        return "not_served", frame
    sound = outer.version == 6 or ones_complement_sum(frame[at : at + 20]) == 0xFFFF
    if at + outer.whole > len(frame) or outer.whole < outer.length + inner.whole or not sound:
        return "malformed", frame
    if not outer.ttl or not inner.ttl:
        return "ttl_expired", frame
    if outer.ecn == 3:
        if not inner.ecn:
            return "congested", frame
        inside = congested(inside, inner)
    return "decapsulated", frame[: at - 2] + (b"\x86\xdd" if inner.version == 6 else b"\x08\x00") + inside


def congested(packet: bytes, inner: Header) -> bytes:
    if inner.version == 6:
        return packet[:1] + bytes([packet[1] | 0x30]) + packet[2:]
    before = 0xFFFF - int.from_bytes(packet[10:12], "big")
    after = 0xFFFF - ((before + 3 - inner.ecn) % 0xFFFF or 0xFFFF)
    return packet[:1] + bytes([packet[1] | 3]) + packet[2:10] + after.to_bytes(2, "big") + packet[12:]


def mutated(rng: Random, frames: list[bytes], least: int = 14) -> bytes:
    """Up to three things wrong with a good frame; half of the time its outer checksum is right again. `least`: bytes
    that are left of it."""
    frame = bytearray(rng.choice(frames))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = rng.randrange(12, min(len(frame), 100))
        frame[at] = rng.choice((rng.choice(TELLING), frame[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
    if rng.random() < 0.1:
        del frame[rng.randrange(least, len(frame)) :]
    if rng.random() < 0.1:
        frame += bytes(rng.randrange(1, 9))
    ip = ip_at(bytes(frame))
    if ip and len(frame) >= ip + 20 and frame[ip] == 0x45 and rng.random() < 0.5:
        frame[ip + 10 : ip + 12] = bytes(2)
        frame[ip + 10 : ip + 12] = (0xFFFF - ones_complement_sum(bytes(frame[ip : ip + 20]))).to_bytes(2, "big")
    return bytes(frame)


@pytest.mark.parametrize("seed", SEEDS)
def test_tunnels(node: Node, seed: int) -> None:
    rng = Random(seed)
    good = [tunnelled(outer, inner, tags) for outer in (4, 6) for inner in (4, 6) for tags in TAGS.values()]
    good += [tunnelled(4, 4, tos=3), tunnelled(6, 6, tc=3), tunnelled(4, 6, src=STRANGER)]
    frames = [bytes(frame) for frame in good]
    before, expected = node.counters(), Counter[str]()
    for number in range(FRAMES):
        frame = mutated(rng, frames)
        verdict, left = decapsulated(frame)
        run = run_program(node.program.fds["gale_decap"], frame)
        expected[verdict] += 1
        assert run.returned == (XDP_DROP if verdict in DROPS else XDP_PASS), f"{verdict}: {number}: {frame.hex()}"
        if run.packet != left:
            same(run.packet, left)
    counted = {name: new - old for name, old, new in zip(NAMES, before, node.counters(), strict=True)}
    assert counted == {name: expected[name] for name in NAMES}
    assert set(NAMES) - {"clamped"} <= set(expected)


def clamped(frame: bytes) -> bytes:
    at = ip_at(frame)
    ip = header(frame[at:], 4 if frame[at - 2] == 8 else 6) if at else None
    if at is None or ip is None or ip.protocol != 6 or len(frame) < at + ip.length + 20:
        return frame
    tcp = at + ip.length
    size = (frame[tcp + 12] >> 4) * 4
    most = SEGMENTS.get(ip.source, 0)
    if not frame[tcp + 13] & 2 or size < 20 or len(frame) < tcp + size or not most:
        return frame
    place = segment_at(frame[tcp : tcp + size])
    if not place or int.from_bytes(frame[tcp + place : tcp + place + 2], "big") <= most:
        return frame
    left = bytearray(frame)
    left[tcp + place : tcp + place + 2] = most.to_bytes(2, "big")
    change = number(left[tcp : tcp + size]) - number(frame[tcp : tcp + size])
    check = 0xFFFF - int.from_bytes(frame[tcp + 16 : tcp + 18], "big")
    left[tcp + 16 : tcp + 18] = (0xFFFF - ((check + change) % 0xFFFF or 0xFFFF)).to_bytes(2, "big")
    return bytes(left)


def number(data: bytes | bytearray) -> int:
    return int.from_bytes(data, "big")


def segment_at(tcp: bytes) -> int:
    """Where in the header the largest segment stands, 0: nowhere. An option before it that makes no sense ends it."""
    at = 20
    while at + 4 <= len(tcp) and tcp[at]:
        if tcp[at] == 2:
            return at + 2 if tcp[at + 1] == 4 else 0
        if tcp[at] != 1 and tcp[at + 1] < 2:
            return 0
        at += 1 if tcp[at] == 1 else tcp[at + 1]
    return 0


@pytest.mark.parametrize("seed", SEEDS)
def test_segments(node: Node, seed: int) -> None:
    rng = Random(seed)
    options = ([("MSS", 1460)], [("NOP", None), ("Timestamp", (1, 2)), ("MSS", 8960)], [("SAckOK", b""), ("MSS", 1460)])
    frames = [
        bytes(ETHER / ip / TCP(sport=80, dport=40000, flags="SA", options=these))
        for ip in (IP(src=VIP, dst=CLIENT), IPv6(src=VIP6, dst=CLIENT6), IP(src=ANY_SEGMENT, dst=CLIENT))
        for these in options
    ]
    frames += [bytes(tags / frame[14:]) for tags, frame in zip(list(TAGS.values())[1:], frames, strict=False)]
    before = node.counters()[NAMES.index("clamped")]
    changed = 0
    for _ in range(FRAMES):
        frame = mutated(rng, frames, SHORTEST)
        left = clamped(frame)
        run = run_program(node.program.fds["gale_clamp"], frame)
        assert run.returned == TC_NEXT
        if run.packet != left:
            same(run.packet, left)
        changed += left != frame
    assert node.counters()[NAMES.index("clamped")] - before >= changed > FRAMES // 10


def test_the_model_sees_what_it_should() -> None:
    frame = bytes(tunnelled(4, 4))
    assert decapsulated(frame)[0] == "decapsulated"
    assert decapsulated(raw(tunnelled(4, 4), 24, b"\0\0"))[0] == "malformed"
