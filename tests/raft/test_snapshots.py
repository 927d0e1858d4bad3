"""Snapshots in steps: written beside the loop's work, believed only when whole, and never half received."""

from collections.abc import Iterator

import pytest
from pysyncobj.config import SERIALIZER_STATE

from gale.core.apply import apply
from gale.core.commands import Announce, Origin, Passed, Proposal, Report
from gale.core.shared import Service, SharedConfig
from gale.core.state import ClusterState, NodeInfo
from gale.raft.disk import DiskError
from gale.raft.records import Entry
from gale.raft.snapshots import Part, Snapshots
from gale.rpc.log_codec import LogCodec
from tests.raft.disks import SeededDisk

BEFORE_LAST: Entry = (b"\1", 6, 2)
LAST: Entry = (b"\1", 7, 3)


class Owner:
    applied_index = 0

    def __init__(self, state: ClusterState) -> None:
        self.state = state


def known(nodes: int) -> ClusterState:
    shared = SharedConfig(services=(Service("default", 8080, 80),))
    me = "10.0.0.1:9090"
    observations = tuple(Passed(NodeInfo(f"n{i}", f"10.1.{i // 200}.{i % 200}"), 1) for i in range(nodes))
    announce = Announce(1, me, "", "", shared, enforces=False, leads=True)
    state, _ = apply(ClusterState(), Proposal(Origin(me, 1, 1), announce))
    state, _ = apply(state, Proposal(Origin(me, 1, 2), Report(2, me, observations)))
    return state


@pytest.fixture(scope="module")
def state() -> ClusterState:
    return known(600)


def written(disk: SeededDisk, state: ClusterState) -> Snapshots:
    snapshots = Snapshots(disk, LogCodec(), Owner(state))
    snapshots.serialize((None, LAST, BEFORE_LAST, ()), 6)
    steps = 0
    while (status := snapshots.checkSerializing())[0] == SERIALIZER_STATE.SERIALIZING:
        steps += 1
        assert "snapshot" not in disk.durable
    assert status == (SERIALIZER_STATE.SUCCESS, 6)
    assert steps > 1, "more than one step"
    return snapshots


def parts(snapshots: Snapshots) -> Iterator[Part]:
    while True:
        part = snapshots.getTransmissionData("peer")
        assert part is not None
        yield part
        if part[2]:
            return


def test_what_is_written_in_steps_is_read_again(state: ClusterState) -> None:
    disk = SeededDisk()
    written(disk, state)
    again = Snapshots(disk, LogCodec(), Owner(ClusterState()))
    again.load()
    assert again.loaded == (state, BEFORE_LAST, LAST)


def test_what_is_sent_in_parts_arrives(state: ClusterState) -> None:
    source, disk = written(SeededDisk(), state), SeededDisk()
    target = Snapshots(disk, LogCodec(), Owner(ClusterState()))
    sent = list(parts(source))
    assert [target.setTransmissionData(part) for part in sent] == [False] * (len(sent) - 1) + [True]
    assert target.loaded == (state, BEFORE_LAST, LAST)
    assert list(parts(target)) == sent, "it can be passed on"


@pytest.mark.parametrize("fate", ["a bit flipped", "a part lost", "broken off and begun again", "older than ours"])
def test_only_a_whole_new_one_takes_the_place_of_the_one_before(state: ClusterState, fate: str) -> None:
    disk = SeededDisk()
    written(disk, state)
    before = disk.durable["snapshot"]
    owner = Owner(ClusterState())
    target = Snapshots(disk, LogCodec(), owner)
    target.load()
    sent = list(parts(written(SeededDisk(), state)))
    match fate:
        case "a bit flipped":
            content, first, last = sent[1]
            sent[1] = content[:99] + bytes([content[99] ^ 1]) + content[100:], first, last
        case "a part lost":
            del sent[1]
        case "broken off and begun again":
            sent = sent[:2]
        case "older than ours":
            owner.applied_index = 7
    assert not any(target.setTransmissionData(part) for part in sent)
    assert disk.durable["snapshot"] == before
    owner.applied_index = 0
    assert [target.setTransmissionData(part) for part in parts(written(SeededDisk(), state))][-1]


def test_a_disk_that_fills_up_while_one_arrives_leaves_the_one_before(state: ClusterState) -> None:
    disk = SeededDisk()
    written(disk, state)
    before = disk.durable["snapshot"]
    target = Snapshots(disk, LogCodec(), Owner(ClusterState()))
    sent = list(parts(written(SeededDisk(), state)))
    target.setTransmissionData(sent[0])
    disk.full = True
    with pytest.raises(DiskError):
        target.setTransmissionData(sent[1])
    disk.full = False
    assert not any(target.setTransmissionData(part) for part in sent[2:])
    assert disk.durable["snapshot"] == before
    assert disk.healthy
    assert [target.setTransmissionData(part) for part in sent][-1]


def test_a_full_disk_costs_a_snapshot_and_nothing_else(state: ClusterState) -> None:
    disk = SeededDisk()
    snapshots = Snapshots(disk, LogCodec(), Owner(state))
    snapshots.serialize((None, LAST, BEFORE_LAST, ()), 6)
    snapshots.checkSerializing()
    disk.full = True
    assert snapshots.checkSerializing()[0] == SERIALIZER_STATE.FAILED
    assert disk.healthy
    assert "snapshot" not in disk.durable
    disk.full = False
    written(disk, state)


def test_one_that_broke_off_while_it_arrived_keeps_no_other_from_being_written(state: ClusterState) -> None:
    source, disk = written(SeededDisk(), state), SeededDisk()
    target = Snapshots(disk, LogCodec(), Owner(state))
    target.setTransmissionData(next(parts(source)))
    target.serialize((None, LAST, BEFORE_LAST, ()), 6)
    while (status := target.checkSerializing()[0]) == SERIALIZER_STATE.SERIALIZING:
        pass
    assert status == SERIALIZER_STATE.SUCCESS
    assert disk.durable["snapshot"]
