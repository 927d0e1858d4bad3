"""Who takes part in the fuzzing: services of every mode, nodes with every kind of hop, worlds made of them by seed."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

from gale.dataplane.settings import DataplaneSettings
from gale.dataplane.settings import Listener as Setting
from tests.packet.oracle import Hop, Listener, Node, World, packed
from tests.packet.oracle.moves import LEARNS_S
from tests.packet.oracle.parse import TCP, UDP

SLOTS = 64
NODES = 11
FLOWS = 1 << 12
SOURCE, SOURCE6 = "10.0.0.1", "fd00::1"
LINK = 2
"""Place in `links` of the interface to all nodes; that of clients' is 1."""
OWN_MAC = bytes.fromhex("020000000201")
ROUTER_MACS = bytes.fromhex("020000000102") + bytes.fromhex("020000000101")
"""The start of frames from clients."""
PROTOCOLS = {"tcp": TCP, "udp": UDP}


def _listeners() -> tuple[Setting, ...]:
    """Each service by both protocols and IP versions; the tunnel's outer version crosses the inner one."""
    rows = [
        ("web", "192.0.2.80", 80, "l4", 8080, 4),
        ("web", "192.0.2.81", 80, "l4", 8080, 4),
        ("web", "2001:db8::80", 80, "l4", 8080, 4),
        ("same", "192.0.2.80", 443, "l4", 443, 4),
        ("near", "192.0.2.82", 80, "l2", 80, 4),
        ("near", "2001:db8::82", 80, "l2", 80, 4),
        ("far", "192.0.2.83", 80, "l3", 80, 4),
        ("far", "2001:db8::83", 80, "l3", 80, 4),
        ("farther", "192.0.2.84", 80, "l3", 80, 6),
        ("farther", "2001:db8::84", 80, "l3", 80, 6),
    ]
    return tuple(
        Setting(service, address, port, protocol, target, mode, tunnel)
        for service, address, port, mode, target, tunnel in rows
        for protocol in ("tcp", "udp")
    )


@dataclass(frozen=True)
class Cast:
    """What a load balancer serves, and for how many flows. `crowded`: for so few that flows push each other out."""

    settings: DataplaneSettings
    crowded: bool = False

    @cached_property
    def listeners(self) -> tuple[Listener, ...]:
        return tuple(
            Listener(
                entry.service,
                packed(entry.address),
                entry.port,
                PROTOCOLS[entry.protocol],
                entry.mode,
                entry.target_port,
                entry.tunnel,
            )
            for entry in self.settings.listeners
        )

    def world(self, rng: Random) -> World:
        """Each service's slots among some of the nodes, some slots without one; some nodes are gone."""
        known = nodes()
        for number in rng.sample(sorted(known), rng.randrange(3)):
            del known[number]
        made = World(self.listeners, socket.inet_aton(SOURCE), packed(SOURCE6))
        for number, node in known.items():
            made.set_node(number, node)
        for service in self.settings.services:
            made.slots[service] = slots(rng)
        return made


def _cast(flows: int = FLOWS, modes: Sequence[str] = ("l2", "l3", "l4"), versions: str = "46") -> Cast:
    served = tuple(
        entry for entry in _listeners() if entry.mode in modes and ("6" if ":" in entry.address else "4") in versions
    )
    return Cast(DataplaneSettings("lo", "lo", SOURCE, SOURCE6, served, SLOTS, flows), flows < FLOWS)


CASTS = {
    "all": _cast(),
    "crowded": _cast(flows=8),
    "l2": _cast(modes=["l2"]),
    "l3": _cast(modes=["l3"]),
    "l4": _cast(modes=["l4"]),
    "IPv4": _cast(versions="4"),
    "IPv6": _cast(versions="6"),
}
"""What is not served is not compiled, so each of these is another program."""

LISTENERS = CASTS["all"].listeners


def _mac(number: int, version: int) -> bytes:
    return bytes((2, 0, 0, 0, 0x10 + version, number)) + OWN_MAC


def _node(number: int) -> Node:
    addresses = socket.inet_aton(f"10.0.0.{10 + number}"), packed(f"fd00::{10 + number}")
    return Node(*addresses, Hop(_mac(number, 4)), Hop(_mac(number, 6)))


NOWHERE = Hop(b"")


def nodes() -> dict[int, Node]:
    """1 to 4 are plain; the others have, each in its way, something in the way."""
    plain = {number: _node(number) for number in range(1, NODES + 1)}
    plain[5] = replace(plain[5], hop4=NOWHERE, hop6=NOWHERE)
    plain[6] = replace(plain[6], hop4=replace(plain[6].hop4, on_link=False), hop6=replace(plain[6].hop6, on_link=False))
    plain[7] = replace(plain[7], hop4=replace(plain[7].hop4, vlan=7), hop6=replace(plain[7].hop6, vlan=0x6FFF))
    plain[8] = replace(plain[8], hop4=replace(plain[8].hop4, mtu=600), hop6=replace(plain[8].hop6, mtu=1280))
    plain[9] = replace(plain[9], address6=b"", hop6=NOWHERE)
    plain[10] = replace(plain[10], hop4=NOWHERE)
    plain[11] = replace(plain[11], hop6=NOWHERE)
    return plain


Change = tuple[str, str | int]
"""What an event has changed: ("slots", service), ("node", number), or nothing for so long: ("seconds", many)."""


def event(rng: Random, now: World) -> Change:
    """Slots move, a node goes, comes, or its number goes to another; time passes."""
    chance = rng.random()
    if chance < 0.4:
        service = rng.choice(sorted(now.slots))
        now.set_slots(service, slots(rng))
        return "slots", service
    if chance < 0.5:
        seconds = rng.choice((10, LEARNS_S + 1))
        now.moves.now_s += seconds
        return "seconds", seconds
    number = rng.randrange(1, NODES + 1)
    there = now.nodes.pop(number, None)
    if there is None or rng.random() < 0.5:
        now.set_node(number, _successor(number) if there and rng.random() < 0.7 else nodes()[number])
    return "node", number


def _successor(number: int) -> Node:
    """Another node that has the number of one that is gone."""
    addresses = socket.inet_aton(f"10.0.1.{10 + number}"), packed(f"fd00::1:{10 + number}")
    return Node(*addresses, Hop(_mac(number, 14)), Hop(_mac(number, 16)))


def slots(rng: Random) -> list[int]:
    """Plain nodes more often than the others. A slot never names a node that is gone, but a program must bear it."""
    owners = [rng.choice((1, 2, 3, 4, 1, 2, 3, 4, *range(NODES + 1))) for _ in range(rng.choice((1, 3, 8)))]
    return [rng.choice(owners) for _ in range(SLOTS)]
