"""A snapshot as a stream: cut anywhere it is not whole, changed anywhere it is damaged, and nothing waits for it."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from gale.core.commands import Announce, Passed, Report
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.slots import SlotTable
from gale.core.state import ClusterState, Node, NodeInfo
from gale.rpc.snapshot_codec import MAGIC, PIECE_BYTES, RECORD_MAX, VERSION, SnapshotReader, encode_snapshot
from tests.unit.strategies import put

A = "10.0.0.1:9090"
SHARED = SharedConfig(HealthPolicy(1), (Service("default", 8080, 80),))
BEFORE_LAST, LAST = (b"\x01", 7, 2), (b"\x00command", 8, 3)


def small() -> ClusterState:
    """With something of everything, and a slot table that is short."""
    state, _ = put(ClusterState(), Announce(0, A, "10.0.0.1:5555", "0.1.0", SHARED, True, True, (A,)))
    state, _ = put(state, Report(9, A, (Passed(NodeInfo("web", "10.1.0.1"), 1),)))
    table = SlotTable(state.tables["default"].owners[:8], bytes(8))
    return replace(state, forgotten_epoch=41, tables={"default": table})


def stream(state: ClusterState) -> bytes:
    return b"".join(encode_snapshot(state, BEFORE_LAST, LAST))


def read(pieces: Iterable[bytes]) -> ClusterState:
    reader = SnapshotReader()
    for piece in pieces:
        reader.feed(piece)
    state, before_last, last = reader.finish()
    assert (before_last, last) == (BEFORE_LAST, LAST)
    return state


def crowd(count: int) -> ClusterState:
    infos = [NodeInfo(f"node-{n}", f"10.{n // 65_536}.{n // 256 % 256}.{n % 256}") for n in range(count)]
    nodes = {info.id: Node(info, number, checks={A: 1}) for number, info in enumerate(infos, 1)}
    return ClusterState(nodes=nodes, addresses={info.address: (info.id,) for info in infos})


def test_it_may_be_cut_into_any_pieces() -> None:
    state, whole = small(), stream(small())
    for size in (1, 3, 7, 100, len(whole)):
        assert read(whole[start : start + size] for start in range(0, len(whole), size)) == state


def test_whatever_is_missing_at_its_end_is_missed() -> None:
    whole = stream(small())
    for size in range(len(whole)):
        with pytest.raises(ValueError, match="cut off"):
            read([whole[:size]])


def test_whichever_byte_is_changed_it_is_noticed() -> None:
    whole = stream(small())
    for position in range(len(whole)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= mask
            with pytest.raises(ValueError, match=r"it is|checksum|the most is"):
                read([bytes(damaged)])


def test_records_that_are_left_out_moved_or_added_are_noticed() -> None:
    whole, other = stream(small()), stream(crowd(3))
    for forged in (whole + b"\0", whole + whole, whole[: len(MAGIC)] + other[60:], whole[:-8] + other[-8:]):
        with pytest.raises(ValueError, match=r"follows its end|checksum|the most is"):
            read([forged])


def test_another_version_is_named() -> None:
    with pytest.raises(ValueError, match=rf"version {VERSION + 1}, this gale reads {VERSION}"):
        read([MAGIC[:-1] + bytes([VERSION + 1])])


def test_a_size_is_not_believed() -> None:
    reader = SnapshotReader()
    with pytest.raises(ValueError, match="the most is"):
        reader.feed(MAGIC + (RECORD_MAX + 1).to_bytes(4, "little") + bytes(4))


def test_a_reader_that_has_found_damage_does_not_get_over_it() -> None:
    whole = bytearray(stream(small()))
    whole[40] ^= 1
    reader = SnapshotReader()
    for _ in range(2):
        with pytest.raises(ValueError, match="checksum"):
            reader.feed(bytes(whole))
    with pytest.raises(ValueError, match="cut off"):
        reader.finish()


def test_a_large_one_comes_in_small_pieces_that_are_made_when_asked_for() -> None:
    state = crowd(4_000)
    pieces = list(encode_snapshot(state, BEFORE_LAST, LAST))
    assert len(pieces) > 4
    assert {len(piece) for piece in pieces[:-1]} == {PIECE_BYTES}
    assert read(pieces) == state
    packed: list[str] = []

    class Nodes(dict[str, Node]):
        def __getitem__(self, name: str) -> Node:
            packed.append(name)
            return super().__getitem__(name)

    next(encode_snapshot(replace(state, nodes=Nodes(state.nodes)), BEFORE_LAST, LAST))
    assert 0 < len(packed) < 1_000
