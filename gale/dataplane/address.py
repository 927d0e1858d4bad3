"""Addresses as the maps hold them: 16 bytes, an IPv4 address as ::ffff:a.b.c.d (bpf/address.h)."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=1 << 15)
def plain(address: str) -> bytes:
    """As in a packet: 4 or 16 bytes. Raises ValueError for what is no address."""
    return ip_address(address).packed


def packed(address: str) -> bytes:
    """Always 16 bytes. Raises ValueError for what is no address."""
    own = plain(address)
    return _MAPPED + own if len(own) == 4 else own


def unpacked(address: bytes) -> str:
    """The text of 16 bytes."""
    six = IPv6Address(address)
    return str(six.ipv4_mapped or six)


def version(address: str) -> int:
    """4 or 6."""
    return 4 if len(plain(address)) == 4 else 6
