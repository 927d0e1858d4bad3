"""The configuration that all load balancers of a cluster share, in a canonical form, and its hash.

What must agree is what decides: the health policy and the services. Interfaces, ports of this machine, certificates
and directories may differ and are not in it. The hash is taken over sorted (key, value) pairs, never over a file's
text, so comments, order and spelling ("5s" or "5000ms") do not matter.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

SLOTS = 16_384
"""Slots of a service: a power of two, small enough (2 bytes each) for a first-level cache."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When a node may receive traffic. `black_list_after_fails` is -1 when nodes are never banned."""

    checks_before_routing: int = 3
    checks_timeout_ms: int = 5_000
    black_list_after_fails: int = -1
    black_list_expiry_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Service:
    """What clients connect to.

    target_port  the port on the nodes; that of the service itself outside l4
    addresses    of both IP versions; without any, each load balancer serves on its own public IPv4 addresses
    protocols    "tcp", "udp"
    mode         "l2", "l3" or "l4"
    tunnel       "ipv4" or "ipv6", the outer header of l3: which of a node's addresses packets are sent to
    """

    name: str
    port: int
    target_port: int
    addresses: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("tcp",)
    mode: str = "l4"
    tunnel: str = "ipv4"

    @property
    def needs_address6(self) -> bool:
        """Its nodes need an IPv6 address: l4 sends on in the IP version in which packets came."""
        return self.mode == "l4" and any(":" in address for address in self.addresses)


@dataclass(frozen=True, slots=True)
class SharedConfig:
    health: HealthPolicy = HealthPolicy()
    services: tuple[Service, ...] = ()

    def canonical(self) -> Iterator[tuple[str, str]]:
        """Sorted (key, value) pairs, keys as an operator writes them."""
        health = self.health
        yield "node_health.black_list_after_fails", str(health.black_list_after_fails)
        yield "node_health.black_list_expiry", f"{health.black_list_expiry_ms}ms"
        yield "node_health.checks_before_routing", str(health.checks_before_routing)
        yield "node_health.checks_timeout", f"{health.checks_timeout_ms}ms"
        for service in sorted(self.services, key=lambda service: service.name):
            prefix = f"service.{service.name}"
            yield f"{prefix}.addresses", ",".join(sorted(service.addresses)) or "own"
            yield f"{prefix}.mode", service.mode
            yield f"{prefix}.port", str(service.port)
            yield f"{prefix}.protocols", ",".join(sorted(service.protocols))
            yield f"{prefix}.target_port", str(service.target_port)
            if service.mode == "l3":
                yield f"{prefix}.tunnel", service.tunnel

    @property
    def hash(self) -> str:
        """16 hexadecimal digits."""
        text = json.dumps(list(self.canonical()), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(ours: SharedConfig, theirs: SharedConfig, most: int = 3) -> str:
    """The first keys that differ, as "key: ours here, theirs there"; empty when nothing does."""
    mine, other = dict(ours.canonical()), dict(theirs.canonical())
    keys = sorted(key for key in mine.keys() | other.keys() if mine.get(key) != other.get(key))
    told = [f"{key}: {mine.get(key, 'absent')} here, {other.get(key, 'absent')} there" for key in keys[:most]]
    return "; ".join(told + ([f"and {len(keys) - most} more"] if len(keys) > most else []))
