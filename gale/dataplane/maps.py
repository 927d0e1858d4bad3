"""The maps of bpf/maps.h, as the writes and questions that gale-lb needs. Shapes come from BCC, never from here."""

import ctypes
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gale.dataplane.abi import verdicts
from gale.dataplane.neighbours import NextHop
from gale.dataplane.settings import DataplaneSettings
from gale.errors import DataplaneError

if TYPE_CHECKING:
    import bcc

PROTOCOLS = {"tcp": socket.IPPROTO_TCP}

_TABLES_PER_SERVICE = 2


class Maps:
    """Every method is one write or one question. Raises DataplaneError when the kernel refuses; nothing has changed."""

    def __init__(self, module: "bcc.BPF", settings: DataplaneSettings) -> None:
        self._module = module
        self._services = {name: number for number, name in enumerate(settings.services)}
        self._slots_size = struct.calcsize("H") * settings.slots
        self._links: dict[int, int] = {}
        self._write("directory", 0, self._directory(settings))

    def set_node(self, number: int, address: str, hop: NextHop | None) -> None:
        """An entry without a resolved next hop tells the packet path that the node exists but cannot be reached yet."""
        entry = self._module[b"nodes"].Leaf()
        entry.address = _network_order(socket.inet_aton(address))
        if hop and hop.mac:
            entry.link = self._link(hop.ifindex)
            entry.macs[:] = hop.mac + hop.interface_mac
        self._write("nodes", number, entry)

    def clear_node(self, number: int) -> None:
        self._write("nodes", number, self._module[b"nodes"].Leaf())

    def set_slots(self, service: str, owners: bytes) -> None:
        """The table that is not in use is written, then the service switched to it: a packet sees one or the other."""
        if service not in self._services:
            raise DataplaneError(f"service {service!r} is not one of {', '.join(self._services)}")
        if len(owners) != self._slots_size:
            raise DataplaneError(f"slots of {service}: {len(owners)} bytes instead of {self._slots_size}")
        number = self._services[service]
        first = _TABLES_PER_SERVICE * number
        spare = first + 1 if self._active(number) == first else first
        self._write("slot_tables", spare, self._module[b"slot_tables"].Leaf.from_buffer_copy(owners))
        self._write("active", number, ctypes.c_uint32(spare))

    def counters(self) -> Mapping[str, int]:
        """Packets per verdict, over all CPUs."""
        table = self._module[b"verdicts"]
        return {verdict.name: sum(table[ctypes.c_int(index)]) for index, verdict in enumerate(verdicts())}

    def _link(self, ifindex: int) -> int:
        """The place of an interface in the map of those that nodes are reached by; 0 stays empty."""
        if ifindex not in self._links:
            place = len(self._links) + 1
            self._write("links", place, ctypes.c_int(ifindex))
            self._links[ifindex] = place
        return self._links[ifindex]

    def _active(self, service: int) -> int:
        return int(self._module[b"active"][ctypes.c_int(service)].value)

    def _directory(self, settings: DataplaneSettings) -> object:
        """Listener n of the settings is number n + 1; those that share a port make a chain."""
        directory = self._module[b"directory"].Leaf()
        first = (ctypes.c_uint16 * (1 << 16)).from_buffer(directory.first)
        for number, listener in enumerate(settings.listeners, start=1):
            port = _network_order(struct.pack("!H", listener.port))
            entry = directory.listeners[number]
            entry.address = _network_order(socket.inet_aton(listener.address))
            entry.target_port = _network_order(struct.pack("!H", listener.target_port))
            entry.service = self._services[listener.service]
            entry.protocol = PROTOCOLS[listener.protocol]
            entry.next, first[port] = first[port], number
        return directory

    def _write(self, name: str, key: int, value: object) -> None:
        try:
            self._module[name.encode()][ctypes.c_int(key)] = value
        except Exception as error:  # BCC raises nothing more specific
            raise DataplaneError(f"map {name}, entry {key}: {error}") from error


def _network_order(packed: bytes) -> int:
    """The number that, stored by this machine, has these bytes."""
    return int.from_bytes(packed, "little" if struct.pack("=H", 1) == b"\1\0" else "big")
