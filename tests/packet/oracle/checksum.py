"""Internet checksums as numbers modulo 0xffff (RFC 1071): 2**16 is 1 there, so any even run of bytes is one number."""

import struct


def ones_complement_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def full(data: bytes) -> int:
    """The checksum of data whose checksum field is zero: the complement of a sum, of which zero is written 0xffff."""
    return 0xFFFF - (number(data) % 0xFFFF or 0xFFFF)


def number(data: bytes) -> int:
    """What the data adds to a sum; an odd last byte counts as the upper half of a word."""
    return int.from_bytes(data, "big") << 8 * (len(data) & 1)


def mended(checksum: int, change: int) -> int:
    """The checksum after the data it covers grew by `change` (RFC 1624, as arithmetic): a wrong one stays wrong."""
    return 0xFFFF - ((0xFFFF - checksum + change) % 0xFFFF or 0xFFFF)


def mended_udp(checksum: int, change: int) -> int:
    """Zero says that there is none, and a checksum that comes out as zero is sent as 0xffff (RFC 768)."""
    return checksum and (mended(checksum, change) or 0xFFFF)
