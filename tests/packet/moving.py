"""A load balancer of l2 and l3 whose slots move: maps as gale-lb writes them, and clients of TCP.

What a packet's fate is can be told from its MAC address: it is the one of the node that gets it.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scapy.packet import Packet

from gale.dataplane import jiffies, listeners
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.maps import Maps, born_before, tables_before
from gale.dataplane.moves import Table, settled
from gale.dataplane.strays import Strays, Sweeper
from tests.packet.direct import (
    NODE,
    OTHER,
    PRIVATE_LINK,
    SETTINGS,
    SLOTS,
    Direct,
    Node,
    Way,
    a_node,
    from_client,
    ip,
    tcp,
)

THIRD = a_node(21)
NODES = (NODE, OTHER, THIRD)
BY_MAC = {bytes.fromhex(node.mac.replace(":", "")): node for node in NODES}
SENT = {"bridged", "tunnelled", "stayed"}
LO = 1
STAMP = 0xFFFFFFFF
MOVE = struct.Struct("=IIHxx")
"""struct move of bpf/abi.h."""


@dataclass
class Client:
    """One end of a connection. `number`: of its next byte."""

    way: Way
    version: int
    port: int
    number: int = 1000

    def packet(self, flags: str = "A", ahead: int = 0) -> Packet:
        """`ahead`: so much before it was lost."""
        return from_client(
            ip(self.version) / tcp(self.way, flags, sport=self.port, seq=(self.number + ahead) & STAMP) / b"data"
        )

    def opening(self, number: int) -> Packet:
        """A SYN; its connection goes on from the next number."""
        syn = ip(self.version) / tcp(self.way, "S", sport=self.port, seq=number & STAMP)
        self.number = (number + 1) & STAMP
        return from_client(syn)


class Moving:
    """The programs, and maps that follow one another as starts of gale-lb make them."""

    def __init__(self, direct: Direct) -> None:
        self.direct, self.program = direct, direct.program
        self.reset()

    def reset(self) -> None:
        for name in ("strays", "slot_tables", "active", "nodes"):
            self.program.maps[name].clear()
        self.directory = listeners.number(SETTINGS.listeners, SETTINGS.services)
        self.begin({})

    def begin(self, tables: Mapping[str, Table], nodes: Sequence[Node] = NODES) -> None:
        """As a start of gale-lb does, but for maps that are used again."""
        self.maps = Maps(self.program, SETTINGS, self.directory, born_before(self.program.maps["nodes"]), tables)
        self.maps.set_link(PRIVATE_LINK, LO)
        for node in nodes:
            self.set_node(node)
        self.strays = Strays(self.program.maps["strays"], self.maps, SETTINGS.services, self.birth)

    def restart(self, owners: Sequence[Node | None], nodes: Sequence[Node] = NODES) -> None:
        """gale-lb has ended; another one finds these owners and nodes committed."""
        numbers = {service: number for number, service in enumerate(SETTINGS.services)}
        self.begin(tables_before(self.program.maps, numbers), nodes)
        self.own(owners)

    def own(self, owners: Sequence[Node | None]) -> None:
        """Of every slot in turn, of every service."""
        numbers = [owner.number if owner else 0 for owner in owners]
        table = struct.pack(f"={SLOTS}H", *(numbers[slot % len(numbers)] for slot in range(SLOTS)))
        for service in SETTINGS.services:
            self.maps.set_slots(service, table)

    def set_node(self, node: Node) -> None:
        self.maps.set_node(node.number, node.address, node.address6, node.hop4, node.hop6)

    def birth(self, number: int) -> int | None:
        entry = self.program.maps["nodes"][number]
        return int(entry.birth) if entry.address else None

    def sent(self, packet: Packet) -> Node | None:
        """Which node gets it."""
        outcome = self.direct.public(packet)
        return BY_MAC[outcome.packet[:6]] if outcome.verdict in SENT else None

    def later(self, seconds: float) -> None:
        """So much time passes, in which nobody sends anything."""
        pass_time(self.maps, self.program.maps["strays"], seconds)

    def sweep(self) -> None:
        """As often as there is something to do."""
        sweeper = Sweeper(self.strays, self.maps)
        while sweeper.work():
            pass

    def moved(self) -> int:
        """Slots that are flagged."""
        return sum(len(table.moved) for table in self.maps.tables.values())


def pass_time(maps: Maps, strays: BpfMap, seconds: float) -> None:
    """All that was, was so much earlier."""
    ticks = round(seconds * jiffies.per_second())
    for service, table in maps.tables.items():
        moves = bytearray(table.moves)
        for slot in table.moved:
            since, began, earlier = MOVE.unpack_from(moves, MOVE.size * slot)
            MOVE.pack_into(moves, MOVE.size * slot, since - ticks & STAMP, began - ticks & STAMP, earlier)
        write_table(maps, service, Table(table.owners, bytes(moves)))
    for key, value in strays.items():
        leaf = strays.Leaf.from_buffer_copy(value)
        leaf.seen = leaf.seen - ticks & STAMP
        strays.update(key, leaf)


def forget_moves(maps: Maps) -> None:
    """As if the owners had always been these."""
    for service, table in maps.tables.items():
        if table.moved:
            write_table(maps, service, settled(table, table.moved))


def write_table(maps: Maps, service: str, table: Table) -> None:
    maps._put_table(service, table)
