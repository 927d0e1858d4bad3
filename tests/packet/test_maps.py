"""Writes of a plan end up in the maps; a slot table changes in one step; what others write is found and mended."""

import itertools
import random
import socket
import struct
import time

import pytest

from gale.core.plan import ClearNode, SetNode, SetSlots, Write, after, plan
from gale.core.view import Addresses, View
from gale.dataplane.address import unpacked
from gale.dataplane.hop import NO_HOP, PUBLIC_LINK, Hop
from gale.dataplane.maps import Maps, born_before
from gale.dataplane.moves import Table
from gale.errors import DataplaneError
from tests.packet.balancer import SETTINGS, SLOTS, Balancer
from tests.packet.packets import NODE_A, NODE_B

ALL_OF = {number: struct.pack("=H", number) * SLOTS for number in (1, 2)}
NODE_A6 = "fd00::a"
LO = 1
HOP = Hop(bytes(range(12)), PUBLIC_LINK, 0x123, 1500, True)


@pytest.fixture
def maps(loaded: Balancer) -> Maps:
    """Nothing is written but what the settings say."""
    for name in ("nodes", "active", "slot_tables", "links", "directory"):
        loaded.program.maps[name].clear()
    return Maps(loaded.program, SETTINGS)


@pytest.fixture
def held(loaded: Balancer, maps: Maps) -> "Held":
    return Held(loaded)


class Held:
    """What the kernel holds."""

    def __init__(self, loaded: Balancer) -> None:
        self.maps = loaded.program.maps

    def address(self, number: int) -> str:
        return socket.inet_ntoa(struct.pack("=I", self.maps["nodes"][number].address))

    def view(self) -> View:
        """The first nodes that have an address, and each service's table in use."""
        entries = {number: self.maps["nodes"][number] for number in range(8)}
        nodes = {
            number: Addresses(
                self.address(number), unpacked(bytes(entry.address6)) if any(entry.address6.bytes) else ""
            )
            for number, entry in entries.items()
            if entry.address
        }
        return View(
            nodes=nodes,
            slots={
                service: bytes(self.maps["slot_tables"][self.in_use(number)].owners)
                for number, service in enumerate(SETTINGS.services)
            },
        )

    def in_use(self, service: int) -> int:
        return int(self.maps["active"][service].value)


def perform(maps: Maps, write: Write) -> None:
    match write:
        case SetNode(number, address, address6):
            maps.set_node(number, address, address6, HOP, NO_HOP)
        case SetSlots(service, owners):
            maps.set_slots(service, owners)
        case ClearNode(number):
            maps.clear_node(number)


def test_every_write_of_a_plan_is_read_back(maps: Maps, held: Held) -> None:
    empty = View(slots=dict.fromkeys(SETTINGS.services, bytes(2 * SLOTS)))
    for service, owners in empty.slots.items():
        maps.set_slots(service, owners)
    views = [
        empty,
        View(nodes={1: Addresses(NODE_A)}, slots=dict.fromkeys(SETTINGS.services, ALL_OF[1])),
        View(
            nodes={1: Addresses(NODE_A, NODE_A6), 2: Addresses(NODE_B)},
            slots=dict.fromkeys(SETTINGS.services, ALL_OF[2]),
        ),
        View(nodes={2: Addresses(NODE_A)}, slots=dict.fromkeys(SETTINGS.services, ALL_OF[2])),
        empty,
    ]
    should = held.view()
    assert should == empty
    for old, new in itertools.pairwise(views):
        for write in plan(old, new):
            should = after(should, write)
            perform(maps, write)
            assert held.view() == should
    assert maps.verify() == ()


def test_a_hop_is_written_as_the_packet_path_reads_it(maps: Maps, held: Held) -> None:
    maps.set_node(5, NODE_A, NODE_A6, HOP, Hop(bytes(12), 2, 0, 1400, False))
    entry = held.maps["nodes"][5]
    assert bytes(entry.hop4.macs) == bytes(range(12))
    assert (entry.hop4.link, entry.hop4.mtu, entry.hop4.on_link) == (PUBLIC_LINK, 1500, 1)
    assert bytes(entry.hop4)[14:16] == b"\x01\x23", "in the order of the packet"
    assert (entry.hop6.link, entry.hop6.mtu, entry.hop6.on_link) == (2, 1400, 0)


def test_the_public_interface_has_its_place(held: Held) -> None:
    assert held.maps["links"].lookup(PUBLIC_LINK) == struct.pack("=i", LO)


def test_the_table_in_use_is_never_written(maps: Maps, held: Held) -> None:
    """However often it is replaced, for each service by itself."""
    for service in SETTINGS.services:
        maps.set_slots(service, bytes(2 * SLOTS))
    for _ in range(20):
        service = random.choice(SETTINGS.services)
        number = SETTINGS.services.index(service)
        used = held.in_use(number)
        before = bytes(held.maps["slot_tables"][used].owners)
        others = {other: held.in_use(other) for other in range(len(SETTINGS.services)) if other != number}
        maps.set_slots(service, random.randbytes(2 * SLOTS))
        assert held.in_use(number) != used
        assert held.in_use(number) // 2 == number
        assert bytes(held.maps["slot_tables"][used].owners) == before
        assert all(held.in_use(other) == table for other, table in others.items())


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (SetSlots("nosuch", ALL_OF[1]), "service 'nosuch' is not one of web, "),
        (SetSlots("web", ALL_OF[1][:-2]), "slots of web: 126 bytes instead of 128"),
        (SetNode(1 << 16, NODE_A), "map nodes, entry 65536"),
        (ClearNode(1 << 16), "map nodes, entry 65536"),
    ],
)
def test_a_refused_write_changes_nothing(maps: Maps, held: Held, write: Write, complaint: str) -> None:
    perform(maps, SetNode(1, NODE_A))
    perform(maps, SetSlots("web", ALL_OF[1]))
    before = held.view()
    with pytest.raises(DataplaneError, match=complaint):
        perform(maps, write)
    assert held.view() == before
    assert maps.verify() == ()


def test_flows_of_a_node_are_marked_with_its_birth(maps: Maps, held: Held) -> None:
    """It stays while the number stands for the same node, however it comes and goes."""

    def birth(address: str, address6: str = "") -> int:
        maps.set_node(1, address, address6, HOP, NO_HOP)
        assert held.maps["nodes"][1].birth == maps.birth(1)
        return maps.birth(1)

    assert birth(NODE_A) == 0
    assert birth(NODE_A, NODE_A6) == 0, "it has come to have an IPv6 address"
    assert birth(NODE_A) == 0
    maps.clear_node(1)
    assert held.maps["nodes"][1].birth == 0
    assert birth(NODE_A, NODE_A6) == 0, "it came back"
    assert birth(NODE_A, "fd00::b") == 1, "another node by its IPv6 address"
    assert birth(NODE_B) == 2
    maps.clear_node(1)
    assert held.maps["nodes"][1].birth == 2
    assert maps.has_node(1, 2) is False
    assert birth(NODE_A) == 3
    assert maps.has_node(1, 3) is True
    assert maps.has_node(1, 2) is False


def test_births_go_round(maps: Maps) -> None:
    for number in range(300):
        maps.set_node(1, (NODE_A, NODE_B)[number % 2], "", HOP, NO_HOP)
    assert maps.birth(1) == 299 % 256


def test_births_outlive_gale_lb(loaded: Balancer, maps: Maps, held: Held) -> None:
    for address in (NODE_A, NODE_B, NODE_A):
        maps.set_node(1, address, NODE_A6, HOP, NO_HOP)
    maps.set_node(2, NODE_A, "", HOP, NO_HOP)
    maps.set_node(2, NODE_B, "", HOP, NO_HOP)
    maps.clear_node(2)
    before = born_before(held.maps["nodes"])
    assert (before[1].birth, unpacked(before[1].address), unpacked(before[1].address6)) == (2, NODE_A, NODE_A6)
    held.maps["nodes"].clear()
    again = Maps(loaded.program, SETTINGS, born=before)
    assert held.maps["nodes"][1].birth == 2
    again.set_node(1, NODE_A, "", HOP, NO_HOP)
    assert again.birth(1) == 2
    again.set_node(2, NODE_B, "", HOP, NO_HOP)
    assert again.birth(2) == 2, "whose the number was is not known: better another one"


def test_what_others_write_is_found_and_mended(maps: Maps, held: Held) -> None:
    perform(maps, SetNode(1, NODE_A))
    for service in SETTINGS.services:
        perform(maps, SetSlots(service, ALL_OF[1]))
    before = {name: held.maps[name].read() for name in ("nodes", "active", "directory")}
    assert maps.verify() == ()

    leaf = held.maps["nodes"][1]
    leaf.birth, leaf.hop4.mtu = 9, 100
    held.maps["nodes"][1] = leaf
    held.maps["nodes"].update(7, bytes([1]) * 64)
    held.maps["active"].update(0, 3)
    directory = bytearray(held.maps["directory"].lookup(0) or b"")
    directory[7] = 7
    held.maps["directory"].update(0, bytes(directory))
    held.maps["links"].delete(PUBLIC_LINK)
    held.maps["links"].update(9, LO)
    in_use = held.in_use(1)
    held.maps["slot_tables"].update(in_use, Table.of(ALL_OF[1][:-4] + b"\7\0\7\0").as_bytes())

    found = maps.verify()
    assert [line.split(":")[0] for line in found] == [
        "map directory, entry 0",
        "map nodes, entry 1",
        "map nodes, entry 7",
        "map active, entry 0",
        "map links, entry 1",
        "map links, entry 9",
        f"service {SETTINGS.services[1]}",
    ]
    assert "birth 09 instead of nothing" in found[1]
    assert found[4] == "map links, entry 1: nothing instead of 01000000"
    assert found[6].endswith(": 2 of 64 slots name another node than they should")
    assert {name: held.maps[name].read() for name in before} == before
    assert maps.verify() == ()


def test_of_very_many_differences_some_are_told(maps: Maps, held: Held) -> None:
    held.maps["nodes"].update_many({number: bytes([1]) * 64 for number in range(1, 101)})
    found = maps.verify()
    assert len(found) == 21
    assert found[-1] == "map nodes: and 80 more entries"
    assert maps.verify() == ()


def test_a_change_of_a_thousand_nodes_is_written_in_time(maps: Maps) -> None:
    """Ten milliseconds for a slot table, whatever the nodes; each node's entry is another system call."""
    owners = struct.pack(f"={SLOTS}H", *(1 + slot % 1000 for slot in range(SLOTS)))
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        maps.set_slots("web", owners)
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.010
    begin = time.perf_counter()
    for number in range(1, 1001):
        maps.set_node(number, NODE_A, NODE_A6, HOP, HOP)
    assert time.perf_counter() - begin < 1
    assert maps.verify() == ()
