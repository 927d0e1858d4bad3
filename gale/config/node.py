"""node.toml."""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from gale.config.reading import (
    SERVICES_MAX,
    Duration,
    Name,
    Port,
    Table,
    TlsFiles,
    WebAddress,
    is_name,
    read,
    refuse_unless,
)
from gale.core.probes import CommandProbe, HttpProbe, Probe, TcpProbe
from gale.errors import ConfigError


class LoadBalancerEntry(Table, frozen=True):
    ip: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    hostname: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    port: Port = 7070


class LoadBalancers(Table, frozen=True):
    addresses: Annotated[tuple[LoadBalancerEntry, ...], msgspec.Meta(min_length=1, max_length=7)]


class NodeEntry(Table, frozen=True):
    name: Name | None = None
    weight: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    services: Annotated[tuple[Name, ...], msgspec.Meta(max_length=SERVICES_MAX)] = ()
    address6: str | None = None
    drain_timeout: Duration = Duration(30_000)


class Health(Table, frozen=True):
    tcp: Port | None = None
    http: Annotated[str, msgspec.Meta(pattern=r"^https?://")] | None = None
    command: tuple[str, ...] = ()
    interval: Duration = Duration(1_000)
    timeout: Duration = Duration(1_000)


class NodeWeb(Table, frozen=True):
    """Metrics and health, over HTTP."""

    address: WebAddress = WebAddress("off")
    port: Port = 5557


class NodeFile(Table, frozen=True):
    load_balancer: LoadBalancers
    node: NodeEntry = NodeEntry()
    health: Health = Health()
    web: NodeWeb = NodeWeb()
    tls: TlsFiles | None = None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything gale-node is told. `load_balancers`: "HOST:PORT" each. `address6`: empty, it finds it itself.
    `web_address`: "off", "loopback", "private" or an IPv4 address."""

    name: str
    load_balancers: tuple[str, ...]
    weight: int = 1
    services: tuple[str, ...] = ()
    address6: str = ""
    probe: Probe | None = None
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 1.0
    tls: TlsFiles | None = None
    web_address: str = "off"
    web_port: int = 5557
    drain_timeout_s: float = 30.0


def load_node(path: Path) -> NodeConfig:
    file = read(path, NodeFile)
    load_balancers = []
    for position, entry in enumerate(file.load_balancer.addresses):
        refuse_unless(
            (entry.ip is None) != (entry.hostname is None),
            path,
            f"load_balancer.addresses[{position}]",
            entry,
            "needs either ip or hostname",
        )
        load_balancers.append(f"{entry.ip or entry.hostname}:{entry.port}")
    refuse_unless(
        len(set(load_balancers)) == len(load_balancers),
        path,
        "load_balancer.addresses",
        load_balancers,
        "lists one twice",
    )
    health = file.health
    name = file.node.name or socket.gethostname()
    refuse_unless(
        is_name(name),
        path,
        "node.name",
        name,
        "the host name is no name: write one here",
    )
    return NodeConfig(
        name=name,
        load_balancers=tuple(load_balancers),
        weight=file.node.weight,
        services=file.node.services,
        address6=_address6(path, file.node.address6),
        probe=_probe(path, health),
        probe_interval_s=health.interval / 1_000,
        probe_timeout_s=health.timeout / 1_000,
        tls=file.tls,
        web_address=file.web.address,
        web_port=file.web.port,
        drain_timeout_s=file.node.drain_timeout / 1_000,
    )


def own_address6(text: str) -> str:
    """An IPv6 address that a node may be reached at, in its shortest form. Raises ValueError: what is needed."""
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError('not an IPv6 address; write e.g. "2001:db8::11"') from None
    local = address.is_link_local or address.is_loopback or address.is_unspecified or address.ipv4_mapped
    if local or address.is_multicast:
        raise ValueError("an address that the load balancers can reach this machine at is needed")
    return str(address)


def _address6(path: Path, text: str | None) -> str:
    if text is None:
        return ""
    try:
        return own_address6(text)
    except ValueError as error:
        raise ConfigError(f'{path}: node.address6 = "{text}": {error}') from None


def _probe(path: Path, health: Health) -> Probe | None:
    probes: list[Probe] = []
    if health.tcp is not None:
        probes.append(TcpProbe(health.tcp))
    if health.http is not None:
        refuse_unless(
            _is_url(health.http), path, "health.http", health.http, 'write e.g. "http://127.0.0.1:8080/healthz"'
        )
        probes.append(HttpProbe(health.http))
    if health.command:
        probes.append(CommandProbe(health.command))
    refuse_unless(len(probes) <= 1, path, "health", health, "choose one of tcp, http and command")
    for key in ("interval", "timeout"):
        refuse_unless(
            getattr(health, key) >= 100, path, f"health.{key}", f"{getattr(health, key)}ms", 'the least is "100ms"'
        )
    return probes[0] if probes else None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", text)
    except ValueError:
        return False
