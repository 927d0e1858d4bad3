"""A snapshot as a stream: cut anywhere it is not whole, changed anywhere it is damaged, and nothing waits for it."""

import base64
from collections.abc import Iterable
from dataclasses import replace

import pytest

from gale.core.apply import apply
from gale.core.commands import Announce, Given, Passed, Report, SetWeight
from gale.core.outcome import Applied
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.slots import SlotTable
from gale.core.state import ClusterState, Node, NodeInfo
from gale.rpc.codec import decode
from gale.rpc.snapshot_codec import MAGIC, PIECE_BYTES, RECORD_MAX, VERSION, SnapshotReader, encode_snapshot
from tests.unit.strategies import put

A = "10.0.0.1:9090"
SHARED = SharedConfig(HealthPolicy(1), (Service("default", 8080, 80),))
BEFORE_LAST, LAST = (b"\x01", 7, 2), (b"\x00command", 8, 3)


# What gale 0.1 before IPv6, tunnels and modes wrote of small(), and its log up to there.
OLD = """
Z2FsZXNucAJvAAAAgtso0gptCgcKAQEQBxgCEg4KCABjb21tYW5kEAgYAxgJIAIqKAokCAEQiCcYASDg1AMqFwoHZGVmYXVsdBCQPxhQKgN0Y3AyAmw0
EAEyDTEwLjAuMC4xOjkwOTA6EwoNMTAuMC4wLjI6OTA5MBACGAFAKV4AAADGngXoElwKDTEwLjAuMC4xOjkwOTASDTEwLjAuMC4xOjU1NTUaBTAuMS4w
IiQIARCIJxgBIODUAyoXCgdkZWZhdWx0EJA/GFAqA3RjcDICbDQoATINMTAuMC4wLjE6OTA5MDkAAAB5bXKAGjcKNQoTCgN3ZWISCDEwLjEuMC4xGAEo
ARABGgdyb3V0aW5nIAkqEQoNMTAuMC4wLjE6OTA5MBABHwAAAKfdUREiHQoHZGVmYXVsdBIIAQABAAEAAQAaCAAAAAAAAAAAVQEAAMUpycgq0gIKSAgB
GhdyZWZlcmVuY2UgY29uZmlndXJhdGlvbiIEbm9uZSoQZTRkMWU4NjQxODMzNjI4YTITMTAuMC4wLjE6OTA5MCBsZWFkcwpBCAIaG2xvYWQgYmFsYW5j
ZXIgMTAuMC4wLjE6OTA5MCIHdW5rbm93bioFYWxpdmUyEGFubm91bmNlZCBpdHNlbGYKQQgDGgdtZW1iZXJzIgRub25lKg0xMC4wLjAuMTo5MDkwMh9h
bGwgb2YgdGhlbSBhbm5vdW5jZWQgdGhpcyBsaXN0CjwIBBAJGghub2RlIHdlYiIHdW5rbm93bioHam9pbmluZzIaZmlyc3QgY2hlY2ssIGZyb20gMTAu
MS4wLjEKQggFEAkaCG5vZGUgd2ViIgdqb2luaW5nKgdyb3V0aW5nMiAxIGNoZWNrcyBwYXNzZWQgYXQgMTAuMC4wLjE6OTA5MAIAAADf8HcIMgA=
"""
OLD_LOG = (
    "0a0d31302e302e302e313a393039301001180122601a5e0a0d31302e302e302e313a39303930120d31302e302e302e313a353535351a05302e312e"
    "3022240801108827180120e0d4032a170a0764656661756c7410903f18502a0374637032026c34280130013a0d31302e302e302e313a39303930",
    "0a0d31302e302e302e313a3930393010011802222e0809122a0a0d31302e302e302e313a3930393012190a170a130a03776562120831302e312e30"
    "2e31180128011001",
)


def small() -> ClusterState:
    """With something of everything, and a slot table that is short."""
    state, _ = put(ClusterState(), Announce(0, A, "10.0.0.1:5555", "0.1.0", SHARED, True, True, (A,)))
    state, _ = put(state, Report(9, A, (Passed(NodeInfo("web", "10.1.0.1"), 1),)))
    table = SlotTable(state.tables["default"].owners[:8], bytes(8))
    return replace(state, forgotten_epoch=41, tables={"default": table})


def as_then(state: ClusterState) -> ClusterState:
    """Without what the older gale did not note: who leads, and of its transitions who was behind them, and where."""
    noted = (each for each in state.transitions if each.subject != "leader")
    transitions = tuple(replace(each, sequence=n, who="", index=0) for n, each in enumerate(noted, 1))
    return replace(state, leader="", transitions=transitions)


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


def test_a_snapshot_and_a_log_of_an_older_gale_are_read() -> None:
    old = read([base64.b64decode(OLD)])
    assert old == as_then(small())
    assert old.shared.services == (Service("default", 8080, 80, (), ("tcp",), "l4", "ipv4"),)
    assert old.nodes["web"].info.address6 == ""
    state = ClusterState()
    for entry in OLD_LOG:
        state, outcome = apply(state, decode(bytes.fromhex(entry)))
        assert isinstance(outcome, Applied)
        assert not outcome.refusals
    state = as_then(state)
    assert (state.nodes, state.reference, state.transitions) == (old.nodes, old.reference, old.transitions)


def test_everything_of_services_and_nodes_is_in_it() -> None:
    services = (
        Service("web", 443, 8443, ("10.0.0.1", "2001:db8::1"), ("tcp", "udp")),
        Service("far", 53, 53, ("2001:db8::2",), ("udp",), "l3", "ipv6"),
        Service("near", 80, 80, ("10.0.0.9",), ("tcp",), "l2"),
    )
    state, _ = put(ClusterState(), Announce(0, A, "", "0.1.0", SharedConfig(HealthPolicy(1), services), True, True))
    for position, info in enumerate(
        (NodeInfo("six", "10.1.0.1", 1, ("far",), 1, "fd00::1"), NodeInfo("4", "10.1.0.2"))
    ):
        state, _ = put(state, Report(position, A, (Passed(info, 1),)))
    state, _ = put(state, SetWeight(9, "six", 7, Given("operator anna", "new disks")))
    assert state.transitions[-1].who == "operator anna"
    again = read([stream(state)])
    assert again == state
    assert again.shared.services == services
    assert again.addresses == {"10.1.0.1": ("six",), "fd00::1": ("six",), "10.1.0.2": ("4",)}
    assert again.shared.hash == state.shared.hash


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
