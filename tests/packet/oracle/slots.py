"""From a flow to its slot: the same on every load balancer and machine, so that any of them may take any packet."""

import ipaddress
from functools import lru_cache

_MASK = (1 << 64) - 1
_SEED = 0x9E3779B97F4A7C15
_HALF = 64


def _splitmix(x: int) -> int:
    """The finaliser of Steele, Lea and Flood's SplitMix64."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@lru_cache(maxsize=1 << 16)
def flow_hash(client: bytes, client_port: int, address: bytes, port: int, protocol: int) -> int:
    """Addresses as they stand in the packet, 4 or 16 bytes."""
    ports = protocol << 32 | client_port << 16 | port
    who, where = int.from_bytes(client, "big"), int.from_bytes(address, "big")
    if len(client) == 4:
        return _splitmix(_splitmix(_SEED ^ (who << 32 | where)) ^ ports)
    folded = ((where >> _HALF) * _SEED + (where & _MASK)) & _MASK
    return _splitmix(_splitmix(_splitmix(_SEED ^ who >> _HALF) ^ (who & _MASK) ^ folded) ^ ports)


def slot(client: str, client_port: int, address: str, port: int, slots: int, protocol: int = 6) -> int:
    """The slot of a flow, with addresses as text."""
    packed = ipaddress.ip_address(client).packed, ipaddress.ip_address(address).packed
    return flow_hash(packed[0], client_port, packed[1], port, protocol) % slots
