"""The services of lb.toml: [forwarding] is the first, called "default", each [[service]] is one more.

Each alone is checked first: a mode's keys mean something in that mode only, so that nobody believes to have set what
has no effect. Then all together: an address, port and protocol has one service, and none is where this load balancer
itself listens.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from gale.config.reading import Name, Port, ServiceAddress, Table, refuse_unless
from gale.core.shared import Service

DEFAULT_SERVICE = "default"
MODES = ("l2", "l3", "l4")
PROTOCOLS = ("tcp", "udp")
TUNNELS = ("ipv4", "ipv6")
LISTENERS_MAX = 255
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


Require = Callable[[bool, str, str], None]
"""What must hold of an entry, the key that is wrong when it does not, and the rule."""


def services(path: Path, entries: Iterable[tuple[str, ServiceEntry]], taken: Iterable[Place]) -> tuple[Service, ...]:
    """The entries, each with the name of its table. `taken`: where load balancers listen for nodes, operators and each
    other."""
    reserved, served, found = set(taken), dict[Place, str](), dict[str, Service]()
    private = {address for address, _, _ in reserved}
    for table, entry in entries:
        require = _requiring(path, table, entry)
        require(entry.name not in found, "name", "is the name of another service")
        service = found[entry.name] = _service(entry, require)
        places = [(a, service.port, protocol) for a in service.addresses or (OWN,) for protocol in service.protocols]
        for place in places:
            told = " ".join(map(str, place))
            known = f"another service has this port and address ({told}): {served.get(place)}"
            require(place not in served, "port", known)
            require(place not in reserved, "port", f"load balancers themselves listen there ({told}): take another")
            served[place] = entry.name
            private_too = f"{place[0]} is a load balancer's private address, and in {service.mode} nodes take it too"
            require(service.mode == "l4" or place[0] not in private, "addresses", private_too)
        most = f"with it there are {len(served)} addresses, ports and protocols: {LISTENERS_MAX} are the most"
        require(len(served) <= LISTENERS_MAX, "name", most)
    return tuple(found.values())


def _service(entry: ServiceEntry, require: Require) -> Service:
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


def _requiring(path: Path, table: str, entry: ServiceEntry) -> Require:
    """Refusals name the key as an operator writes it."""

    def require(holds: bool, name: str, rule: str) -> None:
        refuse_unless(holds, path, ELSEWHERE.get((table, name), f"{table}.{name}"), getattr(entry, name), rule)

    return require
