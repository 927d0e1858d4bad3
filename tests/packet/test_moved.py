"""Connections of l2 and l3 stay with their node when their slot moves; new ones go to the owner (bpf/moved.h)."""

import struct
from collections import Counter
from typing import Any

import pytest

from gale.dataplane import jiffies
from gale.dataplane.moves import Table
from gale.dataplane.strays import FORGOTTEN_S, SETTLED_S, Row
from gale.ports import FlowChoice
from tests.packet.direct import L2, L3_4, L3_6, NODE, OTHER, SLOTS, WAYS, Direct, Way
from tests.packet.moving import THIRD, Client, Moving

LEARNING_S = 60


@pytest.fixture
def moving(direct: Direct) -> Moving:
    return Moving(direct)


@pytest.fixture(params=[(L2, 4), (L3_6, 6)], ids=["l2 IPv4", "l3 IPv6"])
def client(request: pytest.FixtureRequest) -> Client:
    way, version = request.param
    return Client(way, version, 40000)


def opened(moving: Moving, client: Client, number: int = 999) -> None:
    moving.sent(client.opening(number))
    moving.sent(client.packet())


def test_a_connection_stays_when_its_slot_moves(moving: Moving, client: Client) -> None:
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    assert moving.direct.public(client.packet()).verdict == "stayed"
    for seconds in (1, 30, LEARNING_S, 600):
        moving.later(seconds)
        assert moving.sent(client.packet()) is NODE


def test_a_new_one_goes_to_the_owner(moving: Moving, client: Client) -> None:
    moving.own([NODE])
    moving.own([OTHER])
    assert moving.direct.public(client.opening(999)).verdict == client.way.verdict
    for seconds in (0, 30, LEARNING_S, 600):
        moving.later(seconds)
        assert moving.sent(client.packet()) is OTHER


def test_what_is_quiet_for_too_long_goes_to_the_owner(moving: Moving, client: Client) -> None:
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    moving.later(LEARNING_S - 10)
    assert moving.sent(client.packet()) is NODE
    moving.reset()
    moving.own([NODE])
    moving.own([OTHER])
    moving.later(LEARNING_S + 1)
    assert moving.sent(client.packet()) is OTHER


def test_a_dead_nodes_connections_go_to_the_owner(moving: Moving, client: Client) -> None:
    """Also those that are known to be its own; and if another node gets its number."""
    known = Client(client.way, client.version, 40001)
    moving.own([NODE])
    moving.own([OTHER])
    assert moving.sent(known.packet()) is NODE
    moving.maps.clear_node(NODE.number)
    assert moving.sent(client.packet()) is OTHER
    assert moving.sent(known.packet()) is OTHER
    moving.set_node(NODE)
    assert moving.sent(known.packet()) is NODE, "it was the network's fault"
    moving.maps.set_node(NODE.number, "10.0.0.99", "", NODE.hop4, NODE.hop6)
    assert moving.sent(known.packet()) is OTHER


def test_a_port_that_is_used_again(moving: Moving, client: Client) -> None:
    for wait_s in (0, LEARNING_S + 1):
        moving.reset()
        moving.own([NODE])
        opened(moving, client)
        moving.own([OTHER])
        assert moving.sent(client.packet("FA")) is NODE
        moving.later(wait_s)
        assert moving.sent(client.opening(123_456)) is OTHER
        assert moving.sent(client.packet()) is OTHER
        moving.later(LEARNING_S + 1)
        assert moving.sent(client.packet()) is OTHER


def test_a_syn_in_somebody_elses_name(moving: Moving, client: Client) -> None:
    """It goes to the owner, and moves no connection, whether that is known yet or not, and whatever time it is."""
    forged = Client(client.way, client.version, client.port)
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    for seconds in (0, 30, LEARNING_S):
        moving.later(seconds)
        for number in (1 << 20, 1 << 30, 3 << 30):
            assert moving.sent(forged.opening(number)) is OTHER
            assert moving.sent(client.packet()) is NODE


def test_what_goes_on_behind_a_lost_packet(moving: Moving, client: Client) -> None:
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    moving.sent(client.packet())
    moving.sent(client.opening(0xFFFFFFF0))
    assert moving.sent(client.packet(ahead=3000)) is OTHER
    assert moving.sent(client.packet(ahead=1 << 20)) is OTHER


def test_a_late_packet_of_what_was_before(moving: Moving, client: Client) -> None:
    before = Client(client.way, client.version, client.port, client.number)
    moving.own([NODE])
    moving.own([OTHER])
    moving.sent(client.opening(123_456))
    assert moving.sent(before.packet()) is NODE
    assert moving.sent(client.packet()) is OTHER


def test_slots_that_move_again(moving: Moving, client: Client) -> None:
    """While they learn, the first owner's connections that nobody has seen yet are still known as that."""
    second, third = (Client(client.way, client.version, port) for port in (40001, 40002))
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    opened(moving, second)
    moving.later(10)
    moving.own([THIRD])
    opened(moving, third)
    moving.later(10)
    moving.own([NODE])
    for seconds in (0, LEARNING_S - 25, LEARNING_S, 1):
        moving.later(seconds)
        assert [moving.sent(each.packet()) for each in (client, second, third)] == [NODE, OTHER, THIRD]
    moving.own([OTHER])
    assert [moving.sent(each.packet()) for each in (client, second, third)] == [NODE, OTHER, THIRD]


def test_the_only_node_drains(moving: Moving, client: Client) -> None:
    moving.own([NODE])
    opened(moving, client)
    moving.own([None])
    assert moving.sent(client.packet()) is NODE
    assert moving.direct.public(client.opening(5)).verdict == "no_node"


def test_a_slot_that_had_no_owner_is_not_asked_twice(moving: Moving) -> None:
    moving.own([None])
    moving.own([NODE])
    assert moving.moved() == 0


def test_a_restart_knows_what_was(moving: Moving, client: Client) -> None:
    """Also of slots that move while there is no gale-lb."""
    second = Client(client.way, client.version, 40001)
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    opened(moving, second)
    assert moving.sent(client.packet()) is NODE
    moving.restart([THIRD])
    assert moving.maps.verify() == ()
    for seconds in (0, 30, LEARNING_S):
        moving.later(seconds)
        assert moving.sent(client.packet()) is NODE
        assert moving.sent(second.packet()) is OTHER
    assert moving.sent(client.opening(7)) is THIRD


def test_flags_are_taken_away(moving: Moving, client: Client) -> None:
    """As soon as no connection needs them; what is known from before them counts no more."""
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    moving.sent(client.packet())
    moving.sweep()
    assert moving.moved() == SLOTS * len(WAYS), "they learn; flows of l4 have tables"
    moving.later(LEARNING_S + 1)
    moving.sweep()
    assert moving.moved() == 1, "the slot of the connection"
    moving.later(15 * 60)
    moving.sweep()
    assert moving.moved() == 0
    assert moving.sent(client.packet()) is OTHER
    moving.own([THIRD])
    assert moving.sent(client.packet()) is OTHER


def test_entries_that_are_of_no_use_are_deleted(moving: Moving, client: Client) -> None:
    """Those of slots without a flag; and in others what was quiet for a day."""
    silent = Client(client.way, client.version, 40001)
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    for each in (client, silent):
        assert moving.sent(each.packet()) is NODE
    moving.later(LEARNING_S + 1)
    for _ in range(25):
        assert moving.sent(client.packet()) is NODE
        moving.sweep()
        moving.later(3600)
    assert len(moving.program.maps["strays"]) == 1
    for _ in range(2):
        moving.sweep()
    assert len(moving.program.maps["strays"]) == 0


def test_a_connection_stays_for_longer_than_stamps_can_be_compared(moving: Moving, client: Client) -> None:
    """Its slot keeps its flag meanwhile. The whole range is gone through, once and a half."""
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    turn_s = (1 << 25) / jiffies.per_second()
    for _ in range(192):
        for _ in range(1 + int(turn_s // (FORGOTTEN_S - 3600))):
            assert moving.sent(client.packet()) is NODE
            moving.later(min(turn_s, FORGOTTEN_S - 3600))
        assert moving.sent(client.packet()) is NODE
        moving.sweep()
    assert moving.moved() == 1


def test_an_entry_of_long_ago_is_none_of_a_later_flag(moving: Moving, client: Client) -> None:
    moving.own([NODE])
    opened(moving, client)
    moving.own([OTHER])
    assert moving.sent(client.packet()) is NODE
    moving.later(20 * 60)
    for _ in range(2):
        moving.sweep()
    moving.later((3 << 30) / jiffies.per_second())
    moving.own([THIRD])
    assert moving.sent(client.packet()) is OTHER


def test_slots_whose_connections_have_ended(moving: Moving, client: Client) -> None:
    moving.own([NODE])
    moving.own([OTHER])
    moving.sent(client.packet())
    moving.sent(client.packet("R"))
    moving.later(LEARNING_S + 1)
    moving.sweep()
    assert moving.moved() == 0


@pytest.mark.parametrize(("way", "version"), [(L2, 4), (L3_4, 6)])
def test_what_a_draining_node_still_has(moving: Moving, way: Way, version: int) -> None:
    clients = [Client(way, version, port) for port in range(40000, 40010)]
    moving.own([NODE])
    for client in clients:
        opened(moving, client)
    moving.own([OTHER])
    assert not moving.strays.settled(NODE.number)
    for client in clients:
        moving.sent(client.packet())
    clients[0].number += 4
    moving.sent(clients[0].packet("FA"))
    moving.sent(clients[1].packet("R"))
    moving.later(SETTLED_S + 0.1)
    assert moving.strays.settled(NODE.number)
    assert count(moving) == {
        (way.name, "tcp", NODE.number, "established"): 8,
        (way.name, "tcp", NODE.number, "ended"): 2,
    }
    assert count(moving, state="ended") == {(way.name, "tcp", NODE.number, "ended"): 2}
    assert not count(moving, port=1)
    assert not count(moving, service="l4")
    moving.later(LEARNING_S)
    assert count(moving) == {(way.name, "tcp", NODE.number, "ended"): 10}


def test_what_others_write_is_found_and_mended(moving: Moving) -> None:
    moving.own([NODE])
    moving.own([OTHER])
    maps, table = moving.program.maps, moving.maps.tables[L2.name]
    place = next(at for at in range(2) if maps["slot_tables"].lookup(at) == table.as_bytes())
    maps["slot_tables"].update(place, Table.of(struct.pack("=H", OTHER.number) * SLOTS).as_bytes())
    assert moving.maps.verify() == (
        f"service {L2.name}: {SLOTS} slots are flagged as moved that are not, or the other way round",
        f"service {L2.name}: other moves of slots than those that were noted",
    )
    assert moving.maps.verify() == ()
    maps["slot_tables"].update(place, struct.pack("=H", NODE.number) * SLOTS + table.moves)
    assert moving.maps.verify() == (f"service {L2.name}: {SLOTS} of {SLOTS} slots name another node than they should",)


def count(moving: Moving, **choice: Any) -> Counter[Row]:
    """Of the node that had the slots."""
    return sum(moving.strays.count(FlowChoice(node=NODE.number, **choice), jiffies.now()), Counter())
