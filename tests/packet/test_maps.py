"""Writes of a plan end up in the maps; a slot table changes in one step."""

import itertools
import random
import socket
import struct

import pytest

from gale.core.plan import ClearNode, SetNode, SetSlots, after, plan
from gale.core.view import Addresses, View
from gale.dataplane.adapter import BpfDataplane
from gale.errors import DataplaneError
from tests.packet.balancer import SETTINGS, SLOTS, Balancer
from tests.packet.packets import NODE_A, NODE_B

ALL_OF = {number: struct.pack("=H", number) * SLOTS for number in (1, 2)}


def view_of(dataplane: BpfDataplane) -> View:
    """What the maps hold: the first nodes that have an address, and each service's table in use."""
    module = dataplane._program.module
    entries = {number: module[b"nodes"][number] for number in range(8)}
    nodes = {
        number: Addresses(socket.inet_ntoa(struct.pack("=I", entry.address)))
        for number, entry in entries.items()
        if entry.address
    }
    in_use = [module[b"active"][service].value for service in range(len(SETTINGS.services))]
    tables = [bytes(module[b"slot_tables"][table].owners) for table in in_use]
    return View(nodes=nodes, slots=dict(zip(SETTINGS.services, tables, strict=True)))


@pytest.fixture
def dataplane(loaded: Balancer) -> BpfDataplane:
    return BpfDataplane(SETTINGS)


def test_every_write_of_a_plan_is_read_back(dataplane: BpfDataplane) -> None:
    empty = View(slots=dict.fromkeys(SETTINGS.services, bytes(2 * SLOTS)))
    views = [
        empty,
        View(nodes={1: Addresses(NODE_A)}, slots={"web": ALL_OF[1], "tls": ALL_OF[1]}),
        View(nodes={1: Addresses(NODE_A), 2: Addresses(NODE_B)}, slots={"web": ALL_OF[2], "tls": ALL_OF[1]}),
        View(nodes={2: Addresses(NODE_A)}, slots={"web": ALL_OF[2], "tls": ALL_OF[2]}),
        empty,
    ]
    held = view_of(dataplane)
    assert held == empty
    for old, new in itertools.pairwise(views):
        for write in plan(old, new):
            held = after(held, write)
            dataplane.perform(write)
            assert view_of(dataplane) == held


def test_the_table_in_use_is_never_written(dataplane: BpfDataplane) -> None:
    """However often it is replaced, for each service by itself."""
    module = dataplane._program.module
    for _ in range(20):
        service = random.choice(SETTINGS.services)
        number = SETTINGS.services.index(service)
        used = module[b"active"][number].value
        before = bytes(module[b"slot_tables"][used].owners)
        others = {other: module[b"active"][other].value for other in range(len(SETTINGS.services)) if other != number}
        dataplane.perform(SetSlots(service, random.randbytes(2 * SLOTS)))
        assert module[b"active"][number].value != used
        assert bytes(module[b"slot_tables"][used].owners) == before
        assert all(module[b"active"][other].value == table for other, table in others.items())


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (SetSlots("nosuch", ALL_OF[1]), "service 'nosuch' is not one of web, tls"),
        (SetSlots("web", ALL_OF[1][:-2]), "slots of web: 126 bytes instead of 128"),
        (SetNode(1 << 16, NODE_A), "map nodes, entry 65536"),
        (ClearNode(1 << 16), "map nodes, entry 65536"),
    ],
)
def test_a_refused_write_changes_nothing(dataplane: BpfDataplane, write: SetNode, complaint: str) -> None:
    dataplane.perform(SetNode(1, NODE_A))
    dataplane.perform(SetSlots("web", ALL_OF[1]))
    before = view_of(dataplane)
    with pytest.raises(DataplaneError, match=complaint):
        dataplane.perform(write)
    assert view_of(dataplane) == before
    assert dataplane.refresh_neighbours() is not None


def test_counters_start_at_zero(dataplane: BpfDataplane) -> None:
    assert set(dataplane.counters().values()) == {0}
