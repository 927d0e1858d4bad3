"""Addresses as the maps hold them: 16 bytes, an IPv4 address as ::ffff:a.b.c.d (bpf/address.h)."""

from ipaddress import IPv4Address, IPv6Address, ip_address

_MAPPED = bytes(10) + b"\xff\xff"


def packed(address: str) -> bytes:
    """Raises ValueError for what is no address."""
    own = ip_address(address).packed
    return _MAPPED + own if len(own) == IPv4Address(0).max_prefixlen // 8 else own


def unpacked(address: bytes) -> str:
    """The text of 16 bytes."""
    six = IPv6Address(address)
    return str(six.ipv4_mapped or six)


def version(address: str) -> int:
    """4 or 6."""
    return ip_address(address).version
