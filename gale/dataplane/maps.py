"""The maps of bpf/maps.h that gale-lb writes: every method is one write, done whole or not at all.

What was written is remembered, so that `verify` can say what the kernel holds instead, if it ever does: somebody else
may write to the maps of this machine, and a mistake of our own should be seen before clients see it.
"""

import ctypes
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gale.dataplane import jiffies, listeners, moves
from gale.dataplane.address import packed
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.hop import PUBLIC_LINK, Hop
from gale.dataplane.layout import fields
from gale.dataplane.links import interface_index
from gale.dataplane.listeners import Directory
from gale.dataplane.moves import Table
from gale.dataplane.program import Program
from gale.dataplane.settings import DataplaneSettings
from gale.errors import DataplaneError

_TABLES_PER_SERVICE = 2
_BIRTHS = 256
_TELL_MAX = 20
_NONE = bytes(16)
_ARRAYS = ("directory", "nodes", "active")


@dataclass(frozen=True, slots=True)
class Born:
    """Which node a number stands for: `birth` is what its flows are marked with, the addresses are as in the map.

    Without an address it is not known whose the number was.
    """

    birth: int = 0
    address: bytes = _NONE
    address6: bytes = _NONE

    def followed_by(self, address: bytes, address6: bytes) -> "Born":
        """The same node has the same address; an IPv6 address it may come to have, or lose."""
        same = self.address == address and (self.address6 == address6 or _NONE in (self.address6, address6))
        return Born(
            self.birth if same else (self.birth + 1) % _BIRTHS,
            address,
            address6 if any(address6) or not same else self.address6,
        )


_NOBODY: Mapping[int, Born] = MappingProxyType({})
_NO_TABLES: Mapping[str, Table] = MappingProxyType({})


class Maps:
    """Starts from `directory`, with `born`, what an earlier start's numbers of nodes stood for, and with the slot
    `tables` that it has left."""

    def __init__(
        self,
        program: Program,
        settings: DataplaneSettings,
        directory: Directory | None = None,
        born: Mapping[int, Born] = _NOBODY,
        tables: Mapping[str, Table] = _NO_TABLES,
    ) -> None:
        self.directory = directory or listeners.number(settings.listeners, settings.services)
        self._maps = program.maps
        self._services = {name: number for number, name in enumerate(settings.services)}
        self._slots_size = struct.calcsize("H") * settings.slots
        self._born = dict(born)
        self._wrote = {name: bytearray(self._maps[name].value_size * self._maps[name].max_entries) for name in _ARRAYS}
        self._links: dict[int, bytes] = {}
        self.learning = jiffies.ticks(settings.learning_s)
        self.tables: dict[str, Table] = {}
        self._tables_before = {name: table for name, table in tables.items() if len(table.owners) == self._slots_size}
        self._direct = self.directory.direct_services(settings.services)
        leaf = self._maps["directory"].Leaf()
        listeners.write(self.directory, leaf)
        self._write("directory", 0, leaf)
        for number, known in self._born.items():
            self._write("nodes", number, self._maps["nodes"].Leaf(birth=known.birth))
        self.set_link(PUBLIC_LINK, interface_index(settings.public_interface))

    def set_link(self, place: int, ifindex: int) -> None:
        """Give a place in the map of interfaces to one of them."""
        value = struct.pack("=i", ifindex)
        self._maps["links"].update(place, value)
        self._links[place] = value

    def set_node(self, number: int, address: str, address6: str, hop4: Hop, hop6: Hop) -> None:
        """A hop without a link tells the packet path that the node exists, and cannot be reached yet."""
        entry = self._maps["nodes"].Leaf()
        first, second = packed(address), packed(address6) if address6 else _NONE
        before = self._born.get(number)
        born = before.followed_by(first, second) if before else Born(0, first, second)
        _fill(entry, "address", first)
        _fill(entry, "address6", second)
        entry.birth = born.birth
        for place, hop in ((entry.hop4, hop4), (entry.hop6, hop6)):
            place.macs[:] = hop.macs
            place.link, place.vlan, place.mtu, place.on_link = hop.link, socket.htons(hop.vlan), hop.mtu, hop.on_link
        self._write("nodes", number, entry)
        self._born[number] = born

    def clear_node(self, number: int) -> None:
        """Its birth stays: a flow of the node that is gone must not be taken for one of the next."""
        self._write("nodes", number, self._maps["nodes"].Leaf(birth=self.birth(number)))

    def birth(self, number: int) -> int:
        """What flows of the node that has this number, or had it last, are marked with."""
        return self._born[number].birth if number in self._born else 0

    def has_node(self, number: int, birth: int) -> bool:
        """Whether flows that are marked with this birth have their node."""
        table = self._maps["nodes"]
        leaf = table.Leaf.from_buffer_copy(self._wrote["nodes"], number * table.value_size)
        return bool(leaf.address) and leaf.birth == birth

    def set_slots(self, service: str, owners: bytes) -> None:
        """The table that is not in use is written, then the service switched to it: a packet sees one or the other."""
        if service not in self._services:
            raise DataplaneError(f"service {service!r} is not one of {', '.join(self._services)}")
        if len(owners) != self._slots_size:
            raise DataplaneError(f"slots of {service}: {len(owners)} bytes instead of {self._slots_size}")
        held = self.tables.get(service) or self._tables_before.get(service)
        if held and service in self._direct and self.learning:
            self._put_table(service, moves.moved(held, owners, jiffies.now(), self.learning))
        else:
            self._put_table(service, Table.of(owners))

    def settle(self, service: str, slots: Iterable[int]) -> None:
        """No flow needs to be looked for in these slots any more."""
        self._put_table(service, moves.settled(self.tables[service], slots))

    def renew(self, service: str, slots: Iterable[int], since: int) -> None:
        """These slots count as flagged since then, in jiffies."""
        self._put_table(service, moves.renewed(self.tables[service], slots, since))

    def moved_slots(self) -> dict[str, int]:
        """How many are flagged, of each service of l2 and l3."""
        return {service: len(table.moved) for service, table in self.tables.items() if service in self._direct}

    def _put_table(self, service: str, table: Table) -> None:
        first = _TABLES_PER_SERVICE * self._services[service]
        spare = first + 1 if self._in_use(service) == first else first
        self._maps["slot_tables"].update(spare, table.as_bytes())
        self._write("active", self._services[service], ctypes.c_uint32(spare))
        self.tables[service] = table

    def verify(self) -> tuple[str, ...]:
        """What the kernel holds and should not, one line each, and mends it."""
        found = [line for name in _ARRAYS for line in self._mend_array(self._maps[name], self._wrote[name])]
        links = self._maps["links"]
        for place in range(links.max_entries):
            held, should = links.lookup(place), self._links.get(place)
            if held != should and self._mend_link(place, should):
                found.append(f"map links, entry {place}: {_text(held)} instead of {_text(should)}")
        for service, table in self.tables.items():
            found += self._mend_table(service, table)
        return tuple(found)

    def _mend_table(self, service: str, should: Table) -> list[str]:
        place, found = self._in_use(service), list[str]()
        held = Table.of_bytes(self._maps["slot_tables"].lookup(place) or should.as_bytes())
        if held.owners != should.owners:
            pairs = zip(memoryview(held.owners).cast("H"), memoryview(should.owners).cast("H"), strict=True)
            wrong = [has ^ want for has, want in pairs if has != want]
            others, flags = sum(each != moves.MOVED for each in wrong), wrong.count(moves.MOVED)
            if others:
                found.append(
                    f"service {service}: {others} of {self._slots_size // 2} slots name another node than they should"
                )
            if flags:
                found.append(
                    f"service {service}: {flags} slots are flagged as moved that are not, or the other way round"
                )
        if held.moves != should.moves:
            found.append(f"service {service}: other moves of slots than those that were noted")
        if found:
            self._maps["slot_tables"].update(place, should.as_bytes())
        return found

    def _mend_link(self, place: int, should: bytes | None) -> bool:
        """False if there is nothing to mend: the kernel has emptied the place, because the interface is gone."""
        links = self._maps["links"]
        if should is None:
            return links.delete(place)
        with suppress(DataplaneError):
            links.update(place, should)
            return True
        return False

    def _mend_array(self, table: BpfMap, wrote: bytearray) -> list[str]:
        held, size, found = table.read(), table.value_size, []
        if held == wrote:
            return []
        for place in range(table.max_entries):
            has, should = held[place * size : (place + 1) * size], bytes(wrote[place * size : (place + 1) * size])
            if has != should:
                found.append(f"map {table.name}, entry {place}: {_difference(table, has, should)}")
                table.update(place, should)
        left = len(found) - _TELL_MAX
        return found if left <= 0 else [*found[:_TELL_MAX], f"map {table.name}: and {left} more entries"]

    def _in_use(self, service: str) -> int:
        """The slot table that was switched to last."""
        return int(memoryview(self._wrote["active"]).cast("I")[self._services[service]])

    def _write(self, name: str, place: int, value: object) -> None:
        table = self._maps[name]
        table.update(place, value)
        size, raw = table.value_size, bytes(value)  # type: ignore[call-overload]
        self._wrote[name][place * size : (place + 1) * size] = raw


def born_before(nodes: BpfMap) -> dict[int, Born]:
    """What the numbers stood for, by the map of nodes of an earlier start."""
    found, values, size = {}, nodes.read(), nodes.value_size
    for number in range(nodes.max_entries):
        if any(entry := values[number * size : (number + 1) * size]):
            leaf = nodes.Leaf.from_buffer_copy(entry)
            address = bytes(memoryview(leaf).cast("B")[_place(leaf, "address")])
            known = packed(socket.inet_ntoa(address)) if any(address) else _NONE
            found[number] = Born(leaf.birth, known, bytes(memoryview(leaf).cast("B")[_place(leaf, "address6")]))
    return found


def tables_before(maps: Mapping[str, BpfMap], numbers: Mapping[str, int]) -> dict[str, Table]:
    """The slot tables that an earlier start has left, by service. `numbers`: those that its services had."""
    if not {"active", "slot_tables"} <= maps.keys():
        return {}
    active, tables = maps["active"], maps["slot_tables"]
    held = {service: tables.lookup(active.lookup(number)) for service, number in numbers.items()}
    return {service: Table.of_bytes(table) for service, table in held.items() if table}


def _fill(leaf: Any, name: str, value: bytes) -> None:
    """The last bytes of the value, as many as there is room for."""
    place = _place(leaf, name)
    memoryview(leaf).cast("B")[place] = value[place.start - place.stop :]


def _place(leaf: Any, name: str) -> slice:
    start, size = fields(type(leaf))[name]
    return slice(start, start + size)


def _difference(table: BpfMap, has: bytes, should: bytes) -> str:
    """The fields that differ, as the map's C type names them."""
    parts = fields(table.Leaf) if hasattr(table.Leaf, "_fields_") else {"": (0, table.value_size)}
    return ", ".join(
        f"{name} {_text(has[start : start + size])} instead of {_text(should[start : start + size])}".lstrip()
        for name, (start, size) in parts.items()
        if has[start : start + size] != should[start : start + size]
    )


def _text(value: bytes | None) -> str:
    if value is None or not any(value):
        return "nothing"
    return value.hex() if len(value) <= _TELL_MAX else f"something in {len(value)} bytes"
