"""The frames that ought to leave: bridged (l2), tunnelled (l3), translated (l4), and errors translated with what they
quote. Padding behind a packet travels on.
"""

from struct import Struct

from tests.packet.oracle.checksum import full, mended, mended_udp, number
from tests.packet.oracle.parse import LATER, TCP, Packet
from tests.packet.oracle.world import Hop

_OUTER4 = Struct("!BBHHHBBH4s4s")
_OUTER6 = Struct("!IHBB16s16s")
_PORTS = Struct("!HH")
_WORD = Struct("!H")

_DONT_FRAGMENT = 0x4000
_TUNNEL_TTL = 64
_ENCAPSULATED = {4: 4, 6: 41}
"""Protocol numbers of IPv4 and IPv6 inside another packet (RFC 2003, RFC 2473)."""


def bridged(frame: bytes, packet: Packet, hop: Hop) -> bytes:
    """Only how it gets there changes."""
    return hop.macs + hop.tags + frame[packet.at - 2 :]


def tunnelled(frame: bytes, packet: Packet, hop: Hop, version: int, source: bytes, destination: bytes) -> bytes:
    """One hop less inside; outside, the class of traffic and the marks of congestion are those inside (RFC 6040)."""
    inner = bytearray(frame[packet.at :])
    if packet.version == 4:
        traffic_class = inner[1]
        inner[8] -= 1
        _WORD.pack_into(inner, 10, mended(inner[10] << 8 | inner[11], -0x100))
    else:
        traffic_class = (inner[0] & 15) << 4 | inner[1] >> 4
        inner[7] -= 1
    protocol = _ENCAPSULATED[packet.version]
    if version == 4:
        fields = [0x45, traffic_class, packet.length + 20, 0, _DONT_FRAGMENT, _TUNNEL_TTL, protocol, 0]
        fields[7] = full(_OUTER4.pack(*fields, source, destination))
        return hop.macs + hop.tags + b"\x08\x00" + _OUTER4.pack(*fields, source, destination) + inner
    first = 6 << 28 | traffic_class << 20
    outer = _OUTER6.pack(first, packet.length, protocol, _TUNNEL_TTL, source, destination)
    return hop.macs + hop.tags + b"\x86\xdd" + outer + inner


def translated(
    frame: bytes,
    packet: Packet,
    macs: bytes,
    tags: bytes,
    source: bytes,
    destination: bytes,
    source_port: int,
    destination_port: int,
) -> bytes:
    """Other addresses and ports, one hop less; of a fragment, what it has of them."""
    out = bytearray(macs + tags + frame[packet.at - 2 :])
    at = 14 + len(tags)
    change = number(source) + number(destination) - number(packet.source) - number(packet.destination)
    _readdress(out, at, packet.version, source, destination, change)
    if packet.fragment == LATER:
        return bytes(out)
    at += packet.transport - packet.at
    change += source_port + destination_port - packet.source_port - packet.destination_port
    _PORTS.pack_into(out, at, source_port, destination_port)
    _mend_transport(out, at, packet.protocol, change)
    return bytes(out)


def error_translated(
    frame: bytes,
    packet: Packet,
    inner: Packet,
    macs: bytes,
    tags: bytes,
    outer_addresses: tuple[bytes, bytes],
    inner_addresses: tuple[bytes, bytes],
    inner_ports: tuple[int, int],
) -> bytes:
    """Outside and inside; the quoted packet keeps its time to live, and its checksum where it is quoted so far."""
    out = bytearray(macs + tags + frame[packet.at - 2 :])
    shift = 14 + len(tags) - packet.at
    change = sum(map(number, outer_addresses)) - number(packet.source) - number(packet.destination)
    _readdress(out, packet.at + shift, packet.version, *outer_addresses, change)

    inside = sum(map(number, inner_addresses)) - number(inner.source) - number(inner.destination)
    at = inner.at + shift
    source, destination = inner_addresses
    if inner.version == 4:
        out[at + 12 : at + 20] = source + destination
        _WORD.pack_into(out, at + 10, mended(out[at + 10] << 8 | out[at + 11], inside))
    else:
        out[at + 8 : at + 40] = source + destination
    at = inner.transport + shift
    inside += sum(inner_ports) - inner.source_port - inner.destination_port
    _PORTS.pack_into(out, at, *inner_ports)
    if inner.protocol != TCP or inner.transport + 18 <= packet.end:
        _mend_transport(out, at, inner.protocol, inside)

    begin, end = packet.transport, packet.end
    body = number(bytes(out[begin + 8 + shift : end + shift])) - number(frame[begin + 8 : end])
    if packet.version == 6:
        body += change  # ICMPv6 has a pseudo header, ICMP has none
    at = begin + shift
    _WORD.pack_into(out, at + 2, mended(out[at + 2] << 8 | out[at + 3], body))
    return bytes(out)


def _readdress(out: bytearray, at: int, version: int, source: bytes, destination: bytes, change: int) -> None:
    if version == 4:
        out[at + 8] -= 1
        out[at + 12 : at + 20] = source + destination
        _WORD.pack_into(out, at + 10, mended(out[at + 10] << 8 | out[at + 11], change - 0x100))
    else:
        out[at + 7] -= 1
        out[at + 8 : at + 40] = source + destination


def _mend_transport(out: bytearray, at: int, protocol: int, change: int) -> None:
    if protocol == TCP:
        _WORD.pack_into(out, at + 16, mended(out[at + 16] << 8 | out[at + 17], change))
    else:
        _WORD.pack_into(out, at + 6, mended_udp(out[at + 6] << 8 | out[at + 7], change))


def answer_complaint(frame: bytes, packet: Packet, out: bytes, mtu: int) -> str:
    """What is wrong with the answer to a packet too big (RFC 792 and 1191, RFC 4443); empty: nothing.

    How much of the packet it quotes is its affair, within the RFCs.
    """
    at = packet.at
    if out[:6] != frame[6:12] or out[6:12] != frame[:6] or out[12:at] != frame[12:at]:
        return "the answer does not go back where the packet came from"
    header = 20 if packet.version == 4 else 40
    if len(out) < at + header + 8:
        return "the answer has no room for its headers"
    length, body = len(out) - at, out[at + header :]
    if packet.version == 4:
        first, _, total, _, fragment, ttl, protocol, _, source, destination = _OUTER4.unpack_from(out, at)
        sound = first == 0x45 and total == length <= 576 and not fragment & 0x3FFF and ttl > 1 and protocol == 1
        sound = sound and full(out[at : at + 20]) == 0
        told = body[0:2] == b"\3\4" and body[4:8] == mtu.to_bytes(4, "big") and full(body) == 0
    else:
        first, payload, protocol, ttl, source, destination = _OUTER6.unpack_from(out, at)
        sound = first >> 28 == 6 and payload + 40 == length <= 1280 and protocol == 58 and ttl > 1
        pseudo = source + destination + len(body).to_bytes(4, "big") + b"\0\0\0\x3a"
        told = body[0:2] == b"\2\0" and body[4:8] == mtu.to_bytes(4, "big") and full(pseudo + body) == 0
    quote = body[8:]
    if not sound:
        return "the answer's IP header is not right"
    if source != packet.destination or destination != packet.source:
        return "the answer's addresses are not the packet's, turned round"
    if not told:
        return f"the answer's ICMP header is not right, or does not tell {mtu}"
    if len(quote) < packet.transport - at + 8 or quote != frame[at : at + len(quote)]:
        return "the answer does not quote the packet"
    return ""
