"""Frames as bytes, put together header by header with right lengths and checksums; much faster than by scapy.

Addresses are as they stand in packets, so their length says which IP version it is.
"""

from collections.abc import Sequence
from struct import Struct

from tests.packet.oracle.checksum import full
from tests.packet.oracle.parse import DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMP6, ROUTING, TCP, UDP

_IP4 = Struct("!BBHHHBBH4s4s")
_IP6 = Struct("!IHBB16s16s")
_TCP = Struct("!HHIIBBHHH")
_UDP = Struct("!HHHH")
_ICMP = Struct("!BBHI")

End = tuple[bytes, int]
"""An address and a port."""


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    return source + destination + length.to_bytes(4, "big") + protocol.to_bytes(4, "big")


def tcp(
    source: End, destination: End, flags: int, payload: bytes = b"", checksum: bool = True, sequence: int = 1
) -> bytes:
    """Every side's sequence begins with 1."""
    head = source[1], destination[1], sequence, 2, 0x50, flags, 1024
    whole = _TCP.pack(*head, 0, 0) + payload
    check = full(pseudo(source[0], destination[0], TCP, len(whole)) + whole)
    return _TCP.pack(*head, check if checksum else 0, 0) + payload


def udp(source: End, destination: End, payload: bytes = b"", checksum: bool = True) -> bytes:
    length = 8 + len(payload)
    whole = _UDP.pack(source[1], destination[1], length, 0) + payload
    check = full(pseudo(source[0], destination[0], UDP, length) + whole) or 0xFFFF
    return _UDP.pack(source[1], destination[1], length, check if checksum else 0) + payload


def icmp(source: bytes, destination: bytes, kind: int, code: int, rest: int, payload: bytes) -> bytes:
    """ICMP or ICMPv6, by the addresses."""
    whole = _ICMP.pack(kind, code, 0, rest) + payload
    before = pseudo(source, destination, ICMP6, len(whole)) if len(source) == 16 else b""
    return _ICMP.pack(kind, code, full(before + whole), rest) + payload


def ip(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    ttl: int = 64,
    traffic_class: int = 0,
    identity: int = 1,
    fragment: int = 0,
    options: bytes = b"",
    extensions: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    """`fragment`: flags and offset of IPv4. `extensions`: of IPv6, type and header but for its first byte."""
    if len(source) == 4:
        first = 0x45 + len(options) // 4
        fields = [first, traffic_class, 20 + len(options) + len(payload), identity, fragment, ttl, protocol, 0]
        fields[7] = full(_IP4.pack(*fields, source, destination) + options)
        return _IP4.pack(*fields, source, destination) + options + payload
    for kind, header in reversed(extensions):
        payload = bytes((protocol,)) + header + payload
        protocol = kind
    return _IP6.pack(6 << 28 | traffic_class << 20, len(payload), protocol, ttl, source, destination) + payload


def extension(kind: int, words: int = 0, segments_left: int = 0) -> tuple[int, bytes]:
    """Options are padding. `segments_left`: of a routing header."""
    rest = b"\1" + bytes((4 + 8 * words,)) + bytes(4 + 8 * words)
    if kind == ROUTING:
        rest = bytes((0, segments_left)) + bytes(4 + 8 * words)
    if kind in (HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING):
        return kind, bytes((words,)) + rest
    return kind, bytes(7)


def fragment_header(offset: int, more: bool, identity: int) -> tuple[int, bytes]:
    """`offset` in units of 8 bytes."""
    return FRAGMENT, b"\0" + (offset << 3 | more).to_bytes(2, "big") + identity.to_bytes(4, "big")


def fragments(
    source: bytes, destination: bytes, protocol: int, payload: bytes, identity: int, cut: int
) -> tuple[bytes, bytes]:
    """A packet in two; `cut` is a multiple of 8."""
    if len(source) == 4:
        return (
            ip(source, destination, protocol, payload[:cut], identity=identity, fragment=0x2000),
            ip(source, destination, protocol, payload[cut:], identity=identity, fragment=cut // 8),
        )
    first, last = fragment_header(0, True, identity), fragment_header(cut // 8, False, identity)
    return (
        ip(source, destination, protocol, payload[:cut], extensions=[first]),
        ip(source, destination, protocol, payload[cut:], extensions=[last]),
    )


def ethernet(macs: bytes, packet: bytes, tags: bytes = b"") -> bytes:
    return macs + tags + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet
