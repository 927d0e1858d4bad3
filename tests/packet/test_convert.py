"""Flows from tables of another size: all of them, and what changes between the two times."""

import socket
import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.convert import Conversion, places_program
from gale.dataplane.program import Program, Secrets, load
from gale.dataplane.testrun import run_program
from gale.dataplane.words import FLAGS_SHIFT, flags
from tests.packet.balancer import SETTINGS

SECRETS = Secrets(1, 2)
SMALL = replace(SETTINGS, flows=1 << 10)
LARGE = replace(SETTINGS, flows=1 << 12)
FRAME_HEAD = bytes(14)
WAYS, AT_ONCE = 4, 32

pytestmark = pytest.mark.usefixtures("bpf")


@pytest.fixture(scope="module")
def programs() -> tuple[Program, ...]:
    return tuple(load(settings, secrets=SECRETS) for settings in (SMALL, LARGE, SMALL))


@pytest.fixture
def small(programs: tuple[Program, ...]) -> "Tables":
    return Tables(programs[0])


@pytest.fixture
def large(programs: tuple[Program, ...]) -> "Tables":
    return Tables(programs[1])


def state_of(names: str) -> int:
    return sum({flags()[name] for name in ("used", *names.split())})


class Tables:
    """Empty at first. Entries are put where the packet path would look for them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.flows, self.returns = program.maps["flows"], program.maps["returns"]
        self._places = places_program(program)
        for table in (self.flows, self.returns):
            table.clear()

    def put(self, client: int, state: str = "established", stamp: int = 1) -> None:
        """Flow and return path. `state`: flags."""
        for table in (self.flows, self.returns):
            self.put_entry(table, client, state, stamp)

    def put_entry(self, table: BpfMap, client: int, state: str, stamp: int) -> None:
        table.update(self.place(table, client), self.entry(table, client, state, stamp))

    def drop(self, client: int) -> None:
        for table in (self.flows, self.returns):
            table.update(self.place(table, client), bytes(table.value_size))

    def entry(self, table: BpfMap, client: int, state: str, stamp: int) -> bytes:
        address = bytes(10) + b"\xff\xff" + struct.pack("!I", client)
        leaf = table.Leaf(client_port=socket.htons(1000), listener=1, source_port=socket.htons(1 + client))
        memoryview(leaf).cast("B")[table.Leaf.client.offset :][: len(address)] = address
        if table is self.returns:
            leaf.node, leaf.node_port, leaf.protocol = 7, socket.htons(8080), socket.IPPROTO_TCP
        leaf.word = state_of(state) << FLAGS_SHIFT | stamp
        return bytes(leaf)

    def place(self, table: BpfMap, client: int) -> int:
        """Where it is, or else where there is room."""
        entry = self.entry(table, client, "used", 0)
        first = self._first(table, entry)
        places = [first ^ way for way in range(WAYS)] if table is self.flows else [first]
        offset = table.Leaf.word.offset
        held = {place: bytes(table.lookup(place) or b"") for place in places}
        same = [place for place in places if held[place][:offset] == entry[:offset] and any(held[place][offset:])]
        free = [place for place in places if not any(held[place][offset:])]
        return [*same, *free][0]

    def _first(self, table: BpfMap, entry: bytes) -> int:
        return self._firsts(table, [entry])[0]

    def sets(self, clients: Sequence[int]) -> list[int]:
        """Of places for flows."""
        return [
            place // WAYS for place in self._firsts(self.flows, [self.entry(self.flows, c, "used", 0) for c in clients])
        ]

    def _firsts(self, table: BpfMap, entries: Sequence[bytes]) -> list[int]:
        program = self._places.fds[f"gale_{table.name.removesuffix('s')}_places"]
        found = list[int]()
        for begin in range(0, len(entries), AT_ONCE):
            frame = FRAME_HEAD + b"".join(entries[begin : begin + AT_ONCE])
            answer = run_program(program, frame).packet[len(FRAME_HEAD) :]
            words = range(table.Leaf.word.offset, len(answer), table.value_size)
            found += [int(struct.unpack_from("=Q", answer, at)[0]) for at in words]
        return found

    def clients(self, table: BpfMap) -> dict[int, tuple[int, int]]:
        """Client -> flags and stamp of its entry, which must be where it is looked for."""
        found = {}
        for key, value in table.items():
            leaf = table.Leaf.from_buffer_copy(value)
            if leaf.word:
                client = int(struct.unpack_from("!I", value, table.Leaf.client.offset + 12)[0])
                place = int.from_bytes(key, "little")
                ways = WAYS if table is self.flows else 1
                assert place in {self._first(table, value) ^ way for way in range(ways)}
                found[client] = (leaf.word >> FLAGS_SHIFT, leaf.word & 0xFFFFFFFF)
        return found


class Both:
    """Conversions of both tables, in their order."""

    def __init__(self, old: Tables, new: Tables) -> None:
        self._each = [Conversion(getattr(old, name), getattr(new, name), new.program) for name in ("returns", "flows")]
        self.lost: set[bytes] = set()

    def run(self) -> list[int]:
        return [each.run(self.lost) for each in self._each]


@pytest.fixture(params=["larger", "smaller", "the same"])
def tables(
    request: pytest.FixtureRequest, small: Tables, large: Tables, programs: tuple[Program, ...]
) -> tuple[Tables, Tables]:
    if request.param == "the same":
        return small, Tables(programs[2])
    return (small, large) if request.param == "larger" else (large, small)


def test_every_flow_is_found_where_it_is_looked_for(tables: tuple[Tables, Tables]) -> None:
    old, new = tables
    for client in range(200):
        old.put(client, stamp=client + 1)
    both = Both(old, new)
    assert both.run() == [200, 200]
    wanted = {client: (state_of("established"), client + 1) for client in range(200)}
    assert new.clients(new.returns) == new.clients(new.flows) == wanted
    assert not both.lost


def test_what_changes_between_the_two_times_is_taken_over_as_well(tables: tuple[Tables, Tables]) -> None:
    old, new = tables
    for client in range(6):
        old.put(client, "used")
    both = Both(old, new)
    both.run()
    old.drop(0)
    old.put(1, "established", 2)
    old.put(2, "used", 3)  # was seen since: no change
    old.put(6, "used")
    new.put(3, "ended", 9)  # the new programs have seen this one meanwhile
    new.put(4, "ended", 9)
    old.put(4, "established", 5)
    both.run()
    assert new.clients(new.flows) == {
        1: (state_of("established"), 2),
        2: (state_of("used"), 1),
        3: (state_of("ended"), 9),
        4: (state_of("ended established"), 9),
        5: (state_of("used"), 1),
        6: (state_of("used"), 1),
    }
    assert both.run() == [0, 0]


def test_a_flow_without_a_return_path_is_left_behind(small: Tables, large: Tables) -> None:
    """Or two flows would look alike to a node. A port belongs to whom the new programs gave it."""
    large.put(7)
    clash = large.place(large.returns, 7)
    small.put(7)
    other = bytearray(large.entry(large.returns, 7, "established", 1))
    other[large.returns.Leaf.client.offset + 15] = 99
    large.returns.update(clash, bytes(other))
    large.flows.clear()
    both = Both(small, large)
    both.run()
    assert len(both.lost) == 1
    assert large.clients(large.flows) == {}


def test_entries_that_are_being_written_wait_for_the_second_time(small: Tables, large: Tables) -> None:
    small.put(1, "locked")
    small.put(2, "used")
    both = Both(small, large)
    assert both.run() == [1, 1]
    small.put(1, "established")
    assert both.run() == [1, 1]
    assert set(large.clients(large.flows)) == {1, 2}


@pytest.mark.parametrize("others", ["used", "established ended"])
def test_those_who_are_established_have_room_first(small: Tables, large: Tables, others: str) -> None:
    """Eight flows of one set of four places, from two sets that have room for four each."""

    by_set: dict[int, dict[int, list[int]]] = {}
    clients = range(1 << 13)
    for client, few, many in zip(clients, small.sets(clients), large.sets(clients), strict=True):
        by_set.setdefault(few, {}).setdefault(many, []).append(client)
    crowds = ([found[:4] for found in each.values() if len(found) >= 4] for each in by_set.values())
    opening, established = next(two for two in crowds if len(two) >= 2)[:2]
    for client in opening:
        large.put(client, others)
    for client in established:
        large.put(client, "established")
    both = Both(large, small)
    both.run()
    assert set(small.clients(small.flows)) == set(established)
    assert len(both.lost) == len(opening)
