"""What can be wrong or rare about a frame: each mutation changes one thing in it, knowing where it lies."""

from collections.abc import Callable
from random import Random

from tests.packet.fuzz.cast import LISTENERS, SOURCE, SOURCE6, nodes
from tests.packet.oracle import packed

_BYTES = (0, 1, 2, 4, 5, 6, 0x0F, 0x11, 0x2C, 0x3A, 0x3C, 0x45, 0x46, 0x4F, 0x60, 0x7F, 0x80, 0xFF)
_WORDS = (0, 1, 7, 8, 19, 20, 21, 28, 39, 40, 41, 48, 60, 576, 1280, 1500, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
_PORTS = (0, 53, 80, 443, 1024, 8080, 40000, 65535)
_PROTOCOLS = (0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 255)
_FRAGMENTS = (0x2000, 0x4000, 0x8000, 1, 2, 0x1FFF, 0x2001, 0x3FFF, 0x6000)
_FLAGS = (0x02, 0x12, 0x10, 0x11, 0x04, 0x14, 0x18, 0x00, 0x03, 0x06, 0x29, 0xC2, 0xFF)
_TYPES = (0, 1, 2, 3, 4, 5, 8, 11, 12, 128, 129, 133, 135)
_TAGS = tuple(bytes.fromhex(tag) for tag in ("81000007", "81000fff", "88a80064", "81000000", "91000001", "8100e001"))
_ADDRESSES = {
    4: [e.address for e in LISTENERS if len(e.address) == 4]
    + [packed(SOURCE), bytes(4), b"\xff" * 4, *(node.address for node in nodes().values() if node.address)],
    6: [e.address for e in LISTENERS if len(e.address) == 16]
    + [packed(SOURCE6), bytes(16), b"\xff" * 16, *(node.address6 for node in nodes().values() if node.address6)],
}

Mutation = Callable[[Random, bytearray, int], None]
"""Of a frame whose IP header begins at the third argument."""


def _pick(rng: Random, values: tuple[int, ...]) -> int:
    return values[int(rng.random() * len(values))]


def _put(data: bytearray, at: int, value: int, size: int = 1) -> None:
    if at + size <= len(data):
        data[at : at + size] = value.to_bytes(size, "big")


def _version6(data: bytearray, at: int) -> bool:
    return at < len(data) and data[at] >> 4 == 6


def _transport(data: bytearray, at: int) -> int:
    """Where it is without extension headers."""
    if at >= len(data):
        return at
    return at + (40 if data[at] >> 4 == 6 else 4 * (data[at] & 15))


def any_byte(rng: Random, data: bytearray, at: int) -> None:
    where = int(rng.random() * min(len(data), at + 80))
    data[where] = _pick(rng, _BYTES) if rng.random() < 0.5 else int(rng.random() * 256)


def one_bit(rng: Random, data: bytearray, at: int) -> None:
    data[int(rng.random() * len(data))] ^= 1 << int(rng.random() * 8)


def ttl(rng: Random, data: bytearray, at: int) -> None:
    _put(data, at + (7 if _version6(data, at) else 8), _pick(rng, (0, 1, 2, 255)))


def length(rng: Random, data: bytearray, at: int) -> None:
    where = at + (4 if _version6(data, at) else 2)
    if rng.random() < 0.5:
        _put(data, where, _pick(rng, _WORDS), 2)
    elif where + 2 <= len(data):
        _put(data, where, (int.from_bytes(data[where : where + 2], "big") + int(rng.random() * 9) - 4) & 0xFFFF, 2)


def first_byte(rng: Random, data: bytearray, at: int) -> None:
    _put(data, at, _pick(rng, (0x44, 0x45, 0x46, 0x4F, 0x40, 0x55, 0x60, 0x65, 0x05)))


def protocol(rng: Random, data: bytearray, at: int) -> None:
    _put(data, at + (6 if _version6(data, at) else 9), _pick(rng, _PROTOCOLS))


def fragment(rng: Random, data: bytearray, at: int) -> None:
    if not _version6(data, at):
        _put(data, at + 6, _pick(rng, _FRAGMENTS), 2)


def address(rng: Random, data: bytearray, at: int) -> None:
    version, size, where = (6, 16, 8) if _version6(data, at) else (4, 4, 12)
    choice = _ADDRESSES[version][int(rng.random() * len(_ADDRESSES[version]))]
    _put(data, at + where + size * (rng.random() < 0.5), int.from_bytes(choice, "big"), size)


def port(rng: Random, data: bytearray, at: int) -> None:
    _put(data, _transport(data, at) + 2 * (rng.random() < 0.5), _pick(rng, _PORTS), 2)


def flags(rng: Random, data: bytearray, at: int) -> None:
    _put(data, _transport(data, at) + 13, _pick(rng, _FLAGS))


def checksum(rng: Random, data: bytearray, at: int) -> None:
    where = (at + 10, _transport(data, at) + 16, _transport(data, at) + 6, _transport(data, at) + 2)
    _put(data, where[int(rng.random() * 4)], _pick(rng, (0, 0xFFFF, 0xFFFE, 1, 0x1234)), 2)


def fourth_word(rng: Random, data: bytearray, at: int) -> None:
    """The length that UDP tells, or half of a sequence number; TCP's header length."""
    if rng.random() < 0.5:
        _put(data, _transport(data, at) + 4, _pick(rng, _WORDS), 2)
    else:
        _put(data, _transport(data, at) + 12, _pick(rng, (0, 0x40, 0x50, 0x60, 0xF0)))


def kind_of_icmp(rng: Random, data: bytearray, at: int) -> None:
    _put(data, _transport(data, at), _pick(rng, _TYPES))


def quoted_packet(rng: Random, data: bytearray, at: int) -> None:
    """Somewhere in what an error quotes, if it is one."""
    inner = _transport(data, at) + 8
    _put(data, inner + int(rng.random() * (68 if _version6(data, at) else 40)), _pick(rng, _BYTES))


def cut(rng: Random, data: bytearray, at: int) -> None:
    del data[max(14, int(rng.random() * len(data))) :]


def cut_packet(rng: Random, data: bytearray, at: int) -> None:
    """Shorter, and says so."""
    header = 40 if _version6(data, at) else 20
    if len(data) > at + header:
        del data[at + header + int(rng.random() * (len(data) - at - header)) :]
        if header == 40:
            _put(data, at + 4, len(data) - at - 40, 2)
        else:
            _put(data, at + 2, len(data) - at, 2)


def padding(rng: Random, data: bytearray, at: int) -> None:
    data += bytes((int(rng.random() * 256),)) * (1 + int(rng.random() * 40))


def tag(rng: Random, data: bytearray, at: int) -> None:
    data[12:12] = _TAGS[int(rng.random() * len(_TAGS))]


def untag(rng: Random, data: bytearray, at: int) -> None:
    if at > 14:
        del data[12:16]


def macs(rng: Random, data: bytearray, at: int) -> None:
    """Another next hop."""
    data[int(rng.random() * 12)] ^= 0x10


MUTATIONS: tuple[Mutation, ...] = (
    any_byte,
    any_byte,
    one_bit,
    ttl,
    length,
    first_byte,
    protocol,
    fragment,
    address,
    port,
    port,
    flags,
    flags,
    checksum,
    fourth_word,
    kind_of_icmp,
    quoted_packet,
    quoted_packet,
    cut,
    cut_packet,
    padding,
    tag,
    tag,
    untag,
    macs,
)


def mutated(rng: Random, frame: bytes) -> bytes:
    """One change, seldom up to four."""
    data = bytearray(frame)
    times = 1 if rng.random() < 0.7 else 1 + int(rng.random() * 4)
    for _ in range(times):
        at = 14
        while bytes(data[at - 2 : at]) in (b"\x81\x00", b"\x88\xa8") and at < 22:
            at += 4
        MUTATIONS[int(rng.random() * len(MUTATIONS))](rng, data, at)
    return bytes(data)
