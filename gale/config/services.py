"""The services of lb.toml: [forwarding] is the first, called "default", each [[service]] is one more.

Each alone is checked first: a mode's keys mean something in that mode only, so that nobody believes to have set what
has no effect. Then all together: an address, port and protocol has one service, and none is where this load balancer
itself listens.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from gale.config.reading import Name, Port, ServiceAddress, Table, refuse_unless
from gale.core.shared import Service

DEFAULT_SERVICE = "default"
MODES = ("l2", "l3", "l4")
PROTOCOLS = ("tcp", "udp")
TUNNELS = ("ipv4", "ipv6")
LISTENERS_MAX = 1_023
ELSEWHERE = {
    ("forwarding", "port"): "public_interface.clients_port",
    ("forwarding", "addresses"): "public_interface.virtual_addresses",
}
OWN = "own"

Place = tuple[str, int, str]
"""Address ("own": each load balancer's own), port, protocol."""


class ServiceEntry(Table, frozen=True):
    name: Name
    port: Port
    addresses: tuple[ServiceAddress, ...] = ()
    protocols: tuple[str, ...] = ("tcp",)
    mode: str = "l4"
    target_port: Port | None = None
    tunnel: str | None = None


def services(path: Path, entries: Iterable[tuple[str, ServiceEntry]], taken: Iterable[Place]) -> tuple[Service, ...]:
    """The entries, each with the name of its table. `taken`: where load balancers listen for nodes, operators and each
    other."""
    reserved, served, names, found = set(taken), dict[Place, str](), set[str](), list[Service]()
    for table, entry in entries:
        refuse_unless(entry.name not in names, path, _key(table, "name"), entry.name, "is the name of another service")
        names.add(entry.name)
        service = _service(path, table, entry)
        for place in _places(service):
            told = " ".join(map(str, place))
            rule = f"load balancers themselves listen there ({told}): take another port"
            refuse_unless(place not in reserved, path, _key(table, "port"), entry.port, rule)
            rule = f"another service has this port and address ({told}): {served.get(place)}"
            refuse_unless(place not in served, path, _key(table, "port"), entry.port, rule)
            served[place] = entry.name
        found.append(service)
    rule = f"with all services there are {len(served)} addresses, ports and protocols: {LISTENERS_MAX} are the most"
    refuse_unless(len(served) <= LISTENERS_MAX, path, _key(table, "name"), entry.name, rule)
    return tuple(found)


def _service(path: Path, table: str, entry: ServiceEntry) -> Service:
    def require(holds: bool, name: str, rule: str) -> None:
        refuse_unless(holds, path, _key(table, name), getattr(entry, name), rule)

    mode, protocols, tunnel = entry.mode, entry.protocols, entry.tunnel
    require(mode in MODES, "mode", 'must be "l2", "l3" or "l4"')
    known = bool(protocols) and set(protocols) <= set(PROTOCOLS)
    require(known, "protocols", 'must be ["tcp"], ["udp"] or both')
    require(len(set(protocols)) == len(protocols), "protocols", "lists one twice")
    require(len(set(entry.addresses)) == len(entry.addresses), "addresses", "lists one twice")
    kept = f"{mode} leaves ports as they are: nodes listen on {entry.port}, or take mode l4"
    require(entry.target_port is None or mode == "l4", "target_port", kept)
    require(tunnel is None or mode == "l3", "tunnel", f"{mode} has no tunnel: leave it out, or take mode l3")
    require(tunnel in (None, *TUNNELS), "tunnel", 'must be "ipv4" or "ipv6"')
    return Service(
        entry.name,
        entry.port,
        entry.target_port or entry.port,
        tuple(sorted(entry.addresses)),
        tuple(sorted(protocols)),
        mode,
        tunnel or "ipv4",
    )


def _key(table: str, name: str) -> str:
    """A service's key as an operator writes it."""
    return ELSEWHERE.get((table, name), f"{table}.{name}")


def _places(service: Service) -> Iterator[Place]:
    for address in service.addresses or (OWN,):
        for protocol in service.protocols:
            yield address, service.port, protocol
