"""Frames built, of the few kinds that gale sends or explains, and taken apart into their headers for people.

Both are plain values. Only what gale's programs send out needs to be taken apart: what follows a header that is not
known here is left out.
"""

import ipaddress
import socket
import struct

from gale.ports import Header, Question

ETHERNET = struct.Struct("!6s6sH")
IPV4 = struct.Struct("!BBHHHBBH4s4s")
IPV6 = struct.Struct("!IHBB16s16s")
TCP = struct.Struct("!HHIIBBHHH")
UDP = struct.Struct("!HHHH")
ICMP = struct.Struct("!BB")
VLAN = struct.Struct("!HH")

TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, TYPE_QINQ = 0x0800, 0x86DD, 0x8100, 0x88A8
PROTOCOL_IPIP, PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_IPV6 = 4, 6, 17, 41
SYN, ACK = 0x02, 0x10
DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000
TTL = 64
_CHECKSUM_AT = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6}
_IPV4_BYTES = 4
FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


def build(question: Question, macs: bytes = bytes(12)) -> bytes:
    """The packet without data. `macs`: the start of the frame, destination first."""
    source, destination = (ipaddress.ip_address(text).packed for text in (question.source, question.destination))
    ports = (question.source_port, question.destination_port)
    if question.protocol == "udp":
        return frame(macs, source, destination, PROTOCOL_UDP, UDP.pack(*ports, UDP.size, 0))
    flags, acknowledged = (SYN, 0) if question.opening else (ACK, 1)
    return frame(macs, source, destination, PROTOCOL_TCP, segment(ports, 1, acknowledged, flags))


def segment(ports: tuple[int, int], sequence: int, acknowledged: int, flags: int) -> bytes:
    """Of TCP, without data; `frame` gives it its checksum."""
    return TCP.pack(*ports, sequence, acknowledged, TCP.size // 4 << 4, flags, 0xFFFF, 0, 0)


def frame(head: bytes, source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """A packet of TCP or UDP between two addresses, its checksums right. `head`: MAC addresses and VLAN tags."""
    at = _CHECKSUM_AT[protocol]
    right = checksum(source + destination + struct.pack("!HH", protocol, len(payload)) + payload)
    payload = payload[:at] + struct.pack("!H", right) + payload[at + 2 :]
    if len(source) > _IPV4_BYTES:
        header = IPV6.pack(6 << 28, len(payload), protocol, TTL, source, destination)
        return head + struct.pack("!H", TYPE_IPV6) + header + payload
    fields = (0x45, 0, IPV4.size + len(payload), 0, DONT_FRAGMENT, TTL, protocol)
    header = IPV4.pack(*fields, checksum(IPV4.pack(*fields, 0, source, destination)), source, destination)
    return head + struct.pack("!H", TYPE_IPV4) + header + payload


def dissect(frame: bytes) -> tuple[Header, ...]:
    """Its headers, outermost first; of a frame that is cut off those that are whole."""
    headers: list[Header] = []
    try:
        to, sender, kind = ETHERNET.unpack_from(frame)
        headers.append(Header("ethernet", {"source": sender.hex(":"), "destination": to.hex(":")}))
        at = ETHERNET.size
        while kind in (TYPE_VLAN, TYPE_QINQ):
            tag, inner = VLAN.unpack_from(frame, at)
            headers.append(Header("vlan", {"id": str(tag & 0xFFF), "type": f"{kind:#06x}"}))
            kind, at = inner, at + VLAN.size
        _network(frame, at, kind, headers)
    except struct.error:
        pass  # it is cut off: what is whole has been told
    return tuple(headers)


def _network(frame: bytes, at: int, kind: int, headers: list[Header]) -> None:
    later = False
    if kind == TYPE_IPV4:
        length, _, _, _, fragment, ttl, protocol, _, source, destination = IPV4.unpack_from(frame, at)
        fields = {"source": socket.inet_ntoa(source), "destination": socket.inet_ntoa(destination), "ttl": str(ttl)}
        later, more = bool(fragment & 0x1FFF), bool(fragment & MORE_FRAGMENTS)
        if later or more:
            fields["fragment"] = f"{8 * (fragment & 0x1FFF)}{'+' if more else ''}"
        headers.append(Header("ipv4", fields))
        at += 4 * (length & 0xF)
    elif kind == TYPE_IPV6:
        _, _, protocol, ttl, *both = IPV6.unpack_from(frame, at)
        source, destination = (socket.inet_ntop(socket.AF_INET6, address) for address in both)
        headers.append(Header("ipv6", {"source": source, "destination": destination, "hop_limit": str(ttl)}))
        at += IPV6.size
    else:
        return
    if protocol in (PROTOCOL_IPIP, PROTOCOL_IPV6):
        _network(frame, at, TYPE_IPV4 if protocol == PROTOCOL_IPIP else TYPE_IPV6, headers)
    elif not later:
        _transport(frame, at, protocol, headers)


def _transport(frame: bytes, at: int, protocol: int, headers: list[Header]) -> None:
    if protocol == PROTOCOL_TCP:
        source, destination, _, _, _, bits, *_ = TCP.unpack_from(frame, at)
        flags = " ".join(name for bit, name in enumerate(FLAGS) if bits >> bit & 1)
        headers.append(
            Header("tcp", {"source_port": str(source), "destination_port": str(destination), "flags": flags})
        )
    elif protocol == PROTOCOL_UDP:
        source, destination, *_ = UDP.unpack_from(frame, at)
        headers.append(Header("udp", {"source_port": str(source), "destination_port": str(destination)}))
    elif protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6):
        kind, code = ICMP.unpack_from(frame, at)
        name = "icmp" if protocol == socket.IPPROTO_ICMP else "icmpv6"
        headers.append(Header(name, {"type": str(kind), "code": str(code)}))


def checksum(data: bytes) -> int:
    """The internet checksum of an even number of bytes, or of an odd one with a zero behind."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF
