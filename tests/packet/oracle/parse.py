"""From a frame to what the packet path may know of it, or to the verdict for want of it.

Numbers are from the standards: Ethernet types and tags (IEEE 802.1Q, 802.1ad), IPv4 (RFC 791), TCP (9293), UDP (768),
ICMP (792), IPv6 (8200), ICMPv6 (4443). A frame may be longer than its packet, by padding; never shorter.
"""

from struct import Struct

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS))
MOST_EXTENSIONS = 6

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

WHOLE, FIRST, LATER = range(3)
"""Of fragments: no fragment, the one with the ports, one without."""

ERRORS4 = frozenset((3, 11, 12))
"""Destination unreachable, time exceeded, parameter problem. Source quench is no more (RFC 6633)."""
ERRORS6 = frozenset((1, 2, 3, 4))
"""Destination unreachable, packet too big, time exceeded, parameter problem."""

TAGS = frozenset((0x8100, 0x88A8))
MOST_TAGS = 2
IPV4, IPV6 = 0x0800, 0x86DD

_HEADER4 = Struct("!BBHHHBBH4s4s")
_HEADER6 = Struct("!IHBB16s16s")
_WORDS = Struct("!HH")
_FRAGMENT = Struct("!BBHI")


class Packet:
    """`at`, `transport`: where in the frame the IP header and what follows it begin; `end`: behind the packet."""

    __slots__ = (
        "at",
        "destination",
        "destination_port",
        "end",
        "error",
        "flags",
        "fragment",
        "identity",
        "length",
        "protocol",
        "sequence",
        "source",
        "source_port",
        "tags",
        "transport",
        "ttl",
        "version",
    )

    at: int
    destination: bytes
    destination_port: int
    end: int
    error: bool
    flags: int
    fragment: int
    identity: int
    length: int
    protocol: int
    sequence: int
    source: bytes
    source_port: int
    tags: bytes
    transport: int
    ttl: int
    version: int


def parse(frame: bytes, with_ipv6: bool = True) -> Packet | str:
    """A verdict's name stands for a packet that ends here."""
    size = len(frame)
    if size < 14:
        return "malformed"
    at, kind = 14, frame[12] << 8 | frame[13]
    while kind in TAGS and at < 14 + 4 * MOST_TAGS:
        if size < at + 4:
            return "malformed"
        kind = frame[at + 2] << 8 | frame[at + 3]
        at += 4
    if kind == IPV4:
        return _parse4(frame, size, at)
    if kind == IPV6 and with_ipv6:
        return _parse6(frame, size, at)
    return "not_ip"


def _parse4(frame: bytes, size: int, at: int) -> Packet | str:
    if size < at + 20:
        return "malformed"
    first, _, length, identity, fragment, ttl, protocol, _, source, destination = _HEADER4.unpack_from(frame, at)
    header = (first & 15) * 4
    if first >> 4 != 4 or not 20 <= header <= length <= size - at:
        return "malformed"
    packet = Packet()
    packet.version = 4
    packet.at = at
    packet.tags = frame[12 : at - 2]
    packet.length = length
    packet.end = at + length
    packet.ttl = ttl
    packet.protocol = protocol
    packet.source = source
    packet.destination = destination
    packet.identity = identity
    packet.transport = at + header
    packet.fragment = LATER if fragment & 0x1FFF else FIRST if fragment & 0x2000 else WHOLE
    if protocol != TCP and protocol != UDP and protocol != ICMP:
        return "other_protocol"
    return _parse_transport(frame, packet)


def _parse6(frame: bytes, size: int, at: int) -> Packet | str:
    if size < at + 40:
        return "malformed"
    first, payload, following, ttl, source, destination = _HEADER6.unpack_from(frame, at)
    end = at + 40 + payload
    if first >> 28 != 6 or end > size:
        return "malformed"
    packet = Packet()
    packet.version = 6
    packet.at = at
    packet.tags = frame[12 : at - 2]
    packet.length = 40 + payload
    packet.end = end
    packet.ttl = ttl
    packet.source = source
    packet.destination = destination
    packet.identity = 0
    packet.fragment = WHOLE
    at += 40
    steps = 0
    while following in EXTENSIONS:
        steps += 1
        if steps > MOST_EXTENSIONS:
            return "extensions"
        if end < at + 8:
            return "malformed"
        if following == FRAGMENT:
            following, _, offset, packet.identity = _FRAGMENT.unpack_from(frame, at)
            packet.fragment = LATER if offset & 0xFFF8 else FIRST if offset & 1 else WHOLE
            at += 8
            if packet.fragment == LATER:
                break
            continue
        if following == ROUTING and frame[at + 3]:
            return "other_protocol"
        following, at = frame[at], at + 8 + 8 * frame[at + 1]
    if at > end:
        return "malformed"
    packet.protocol = following
    packet.transport = at
    if following != TCP and following != UDP and following != ICMP6:
        return "other_protocol"
    return _parse_transport(frame, packet)


def _parse_transport(frame: bytes, packet: Packet) -> Packet | str:
    """Ports of TCP and UDP; whether ICMP is an error."""
    packet.error = False
    packet.flags = packet.source_port = packet.destination_port = packet.sequence = 0
    if packet.fragment == LATER:
        return packet
    at, left, protocol = packet.transport, packet.end - packet.transport, packet.protocol
    if protocol == TCP:
        if left < 20:
            return "malformed"
        packet.flags = frame[at + 13]
        packet.sequence = int.from_bytes(frame[at + 4 : at + 8], "big")
    elif protocol == UDP:
        if left < 8:
            return "malformed"
    else:
        if left < 8:
            return "other_protocol"
        packet.error = frame[at] in (ERRORS6 if packet.version == 6 else ERRORS4)
        return packet
    packet.source_port, packet.destination_port = _WORDS.unpack_from(frame, at)
    return packet


def quoted(frame: bytes, packet: Packet) -> Packet | None:
    """The packet inside an ICMP error, as far as it is there: of the same version, with its ports. None: it is not.

    It may be cut off behind the 8 bytes that hold the ports. Its length is that of the packet that was sent.
    """
    at, end = packet.transport + 8, packet.end
    inner = Packet()
    inner.version = packet.version
    inner.at = at
    inner.end = end
    if packet.version == 4:
        if end < at + 20:
            return None
        first, _, length, _, fragment, _, inner.protocol, _, inner.source, inner.destination = _HEADER4.unpack_from(
            frame, at
        )
        if first >> 4 != 4 or first & 15 < 5 or fragment & 0x1FFF:
            return None
        inner.transport = at + (first & 15) * 4
    else:
        if end < at + 40:
            return None
        version, payload, following, _, inner.source, inner.destination = _HEADER6.unpack_from(frame, at)
        if version >> 28 != 6:
            return None
        length = 40 + payload
        at += 40
        for _ in range(MOST_EXTENSIONS):
            if following not in EXTENSIONS:
                break
            if end < at + 8:
                return None
            if following == FRAGMENT:
                following, _, offset, _ = _FRAGMENT.unpack_from(frame, at)
                if offset & 0xFFF8:
                    return None
                at += 8
            elif following == ROUTING and frame[at + 3]:
                return None
            else:
                following, at = frame[at], at + 8 + 8 * frame[at + 1]
        inner.protocol = following
        inner.transport = at
    if (inner.protocol != TCP and inner.protocol != UDP) or end < inner.transport + 8:
        return None
    if not inner.transport + 8 - inner.at <= length <= 0xFFFF:
        return None
    inner.source_port, inner.destination_port = _WORDS.unpack_from(frame, inner.transport)
    return inner
