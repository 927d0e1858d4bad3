"""The numbers of listeners, which flows name them by, and the directory that the packet path finds them in.

A listener is known by its address, port and protocol, and keeps its number for as long as it is served, over restarts
too. Then three rules see to it that a flow is never taken for one of another listener:

1. A listener whose mode or target port has changed gets a new number. The old entry stays, outside of any chain, as the
   `earlier` one of the new: packets in the middle of what began with it go on so. Taken back, the two swap roles.
2. The entry of a listener that is served no more stays, outside of any chain, while flows name it: what their nodes
   answer is still theirs.
3. A number is given again once no flow names it. If none is left, flows of listeners that are gone are given up.
"""

import socket
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gale.dataplane.address import packed, unpacked
from gale.dataplane.settings import LISTENERS_MAX, MODES, PROTOCOLS, Listener
from gale.errors import DataplaneError

NO_LISTENER = 0
NO_SERVICE = 0xFFFF
"""Of a listener that no service has: an index that no map holds."""

_ALL = range(1, LISTENERS_MAX + 1)
_PORTS = 1 << 16
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
_MODE_NAMES = {number: name for name, number in MODES.items()}

Key = tuple[str, int, str]
"""Address, port, protocol."""


@dataclass(frozen=True, slots=True)
class Known:
    """An entry of a directory. `served`: it is in the chain of its port. `service`: its index."""

    address: str
    port: int
    protocol: str
    mode: str
    target_port: int
    tunnel: int
    earlier: int = NO_LISTENER
    served: bool = True
    service: int = NO_SERVICE

    @property
    def key(self) -> Key:
        return (self.address, self.port, self.protocol)

    def goes_on_as(self, other: "Known") -> bool:
        """Flows that began with this one fit the other: only l4 changes ports."""
        return self.mode == other.mode and (self.mode != "l4" or self.target_port == other.target_port)


@dataclass(frozen=True, slots=True)
class Directory:
    """Number -> entry. `given_up`: numbers whose flows must be removed before this one is used."""

    entries: Mapping[int, Known]
    given_up: frozenset[int] = field(default_factory=frozenset)

    def direct(self, services: tuple[str, ...]) -> tuple[Listener, ...]:
        """Listeners of l2 and l3 that were, and whose connections go on: nodes must keep their addresses."""
        return tuple(
            Listener(services[each.service], *each.key[:2], each.protocol, each.target_port, each.mode, each.tunnel)
            for each in self.entries.values()
            if not each.served and each.mode != "l4" and each.service < len(services)
        )

    def addresses_of_nodes(self) -> frozenset[str]:
        """Those that nodes take for l2 and l3."""
        return frozenset(each.address for each in self.entries.values() if each.mode != "l4")

    def direct_services(self, services: tuple[str, ...]) -> frozenset[str]:
        """Those that nodes answer directly (l2, l3), or did when connections began that go on."""
        served = (each.service for each in self.entries.values() if each.mode != "l4")
        return frozenset(services[number] for number in served if number < len(services))

    def services_in(self, old: "Directory", services: tuple[str, ...]) -> dict[str, int]:
        """The numbers that services had in an old directory, by the listeners that are in both."""
        both = (
            (each.service, old.entries[place].service) for place, each in self.entries.items() if place in old.entries
        )
        return {services[now]: before for now, before in both if now < len(services) and before != NO_SERVICE}

    @property
    def modes(self) -> frozenset[str]:
        """Also of entries that are not served: their flows go on."""
        return frozenset(entry.mode for entry in self.entries.values())


_EMPTY = Directory({})


def number(
    listeners: Iterable[Listener], services: tuple[str, ...], old: Directory = _EMPTY, used: Collection[int] = ()
) -> Directory:
    """The directory that follows an old one. `used`: numbers that flows name."""
    wanted = {entry.key: entry for entry in (_known(listener, services) for listener in listeners)}
    numbers = {entry.key: place for place, entry in old.entries.items() if entry.served}
    entries: dict[int, Known] = {}
    changed: dict[Key, int] = {}
    for key, entry in wanted.items():
        place = numbers.get(key, NO_LISTENER)
        if place and old.entries[place].goes_on_as(entry):
            entries[place] = replace(entry, earlier=old.entries[place].earlier)
        elif place and (back := _earlier(old, place, entry)):
            entries[back] = replace(entry, earlier=place)
        else:
            changed[key] = place
    after = {entry.earlier for entry in entries.values()} | set(changed.values())
    kept = {
        place: replace(entry, served=False, earlier=NO_LISTENER)
        for place, entry in old.entries.items()
        if place not in entries and _still_needed(place, entry, used, after)
    }
    for place, entry in entries.items():
        if entry.earlier not in kept:
            entries[place] = replace(entry, earlier=NO_LISTENER)
    free, given_up = _free(len(changed), entries, kept, used, old)
    for place in given_up:
        kept.pop(place, None)
    for place, (key, earlier) in zip(free, changed.items(), strict=True):
        entries[place] = replace(wanted[key], earlier=earlier)
    services_of = {entry.earlier: entry.service for entry in entries.values()}
    for place, entry in kept.items():
        entries[place] = replace(entry, service=services_of.get(place, NO_SERVICE))
    return Directory(entries, given_up)


def _earlier(old: Directory, place: int, entry: Known) -> int:
    """The number of the listener before the one at `place`, if the change is taken back."""
    back = old.entries[place].earlier
    return back if back in old.entries and old.entries[back].goes_on_as(entry) else NO_LISTENER


def _still_needed(place: int, entry: Known, used: Collection[int], after: Collection[int]) -> bool:
    """What is served until now opens flows until now. l2 and l3 keep none: their entry stays for its successor."""
    return entry.served or (place in used if entry.mode == "l4" else place in after)


def _free(
    many: int, entries: Mapping[int, Known], kept: Mapping[int, Known], used: Collection[int], old: Directory
) -> tuple[list[int], frozenset[int]]:
    """So many numbers, and which of them listeners are robbed of that were gone before, and open no flows any more."""
    unused = [place for place in _ALL if place not in entries and place not in kept and place not in used]
    if len(unused) >= many:
        return unused[:many], frozenset()
    after = {entry.earlier for entry in entries.values()}
    gone = [
        place
        for place in _ALL
        if place not in entries
        and place not in unused
        and place not in after
        and not (place in old.entries and old.entries[place].served)
    ]
    if len(unused) + len(gone) < many:
        raise DataplaneError(
            f"{many} listeners are new or changed at once, and {len(unused) + len(gone)} numbers are left:"
            " start gale-lb with fewer changes first"
        )
    taken = gone[: many - len(unused)]
    return [*unused, *taken], frozenset(taken)


def _known(listener: Listener, services: tuple[str, ...]) -> Known:
    return Known(
        address=unpacked(packed(listener.address)),
        port=listener.port,
        protocol=listener.protocol,
        mode=listener.mode,
        target_port=listener.target_port,
        tunnel=listener.tunnel,
        service=services.index(listener.service),
    )


# The map


def read(leaf: Any) -> Directory:
    """From the one value of `directory`, which an older build may have written, without the fields that are newer."""
    first = struct.unpack(f"={_PORTS}H", bytes(leaf.first))
    served, entries = set[int](), {}
    for place in filter(None, first):
        while place != NO_LISTENER and place not in served:
            served.add(place)
            place = leaf.listeners[place].next
    for place in _ALL[: len(leaf.listeners) - 1]:
        entry = leaf.listeners[place]
        if entry.protocol in _PROTOCOL_NAMES and entry.mode in _MODE_NAMES:
            entries[place] = Known(
                address=unpacked(bytes(entry.address)),
                port=socket.ntohs(entry.port),
                protocol=_PROTOCOL_NAMES[entry.protocol],
                mode=_MODE_NAMES[entry.mode],
                target_port=socket.ntohs(entry.target_port),
                tunnel=entry.tunnel,
                earlier=getattr(entry, "earlier", NO_LISTENER),
                served=place in served,
                service=entry.service,
            )
    return Directory(entries)


def write(directory: Directory, leaf: Any) -> None:
    """Into the empty value of `directory`. Listeners that share a port make a chain."""
    first = memoryview(leaf.first).cast("B").cast("H")
    for place, known in sorted(directory.entries.items()):
        entry, port = leaf.listeners[place], socket.htons(known.port)
        memoryview(entry.address).cast("B")[:] = packed(known.address)
        entry.port, entry.target_port = port, socket.htons(known.target_port)
        entry.protocol, entry.mode, entry.tunnel = PROTOCOLS[known.protocol], MODES[known.mode], known.tunnel
        entry.service, entry.earlier = known.service, known.earlier
        if known.served:
            entry.next, first[port] = first[port], place
