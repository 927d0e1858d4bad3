"""One replica: death at every system call of a compaction loses nothing applied; entries are applied in steps."""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from gale.core.commands import Announce, Command, Origin, Passed, Proposal, Report
from gale.core.hello import Hello
from gale.core.shared import Service, SharedConfig
from gale.core.state import ClusterState, NodeInfo
from gale.log import Refusals
from gale.raft.disk import Disk
from gale.raft.replica import Replica
from gale.raft.streams import Stream
from gale.rpc.log_codec import LogCodec
from tests.raft.disks import dying_at

ME = "10.0.0.1:9090"
SHARED = SharedConfig(services=(Service("default", 8080, 80),))
MORE = 4


class NoStreams:
    """The wire of a load balancer that is alone."""

    async def serve(
        self, accepted: Callable[[Stream], Awaitable[None]], heard: Callable[[str, bytes], None]
    ) -> None: ...

    async def dial(self, address: str) -> Stream:
        raise OSError(address)

    def send(self, address: str, datagram: bytes) -> None: ...

    def close(self) -> None: ...


def started(directory: Path) -> Replica:
    replica = Replica(
        Hello(ME, (ME,), SHARED),
        Disk(directory),
        LogCodec(),
        NoStreams(),
        Refusals("refused"),
        lambda: None,
    )
    for _ in range(1_000):
        replica.tick()
        if replica.leads and replica.isReady():
            return replica
        replica._SyncObj__raftElectionDeadline = 0.0
    raise AssertionError("it does not lead")


def propose(replica: Replica, sequence: int, command: Command) -> None:
    ended: list[object] = []
    replica.submit(Proposal(Origin(ME, 1, sequence), command), lambda outcome, reason: ended.append(outcome))
    while not ended:
        replica.tick()


def filled(directory: Path) -> Replica:
    replica = started(directory)
    propose(replica, 1, Announce(1, ME, "", "", SHARED, enforces=False, leads=True))
    for number in range(2, 2 + MORE):
        propose(replica, number, Report(number, ME, (Passed(NodeInfo(f"n{number}", f"10.1.0.{number}"), 1),)))
    return replica


def compact(replica: Replica) -> None:
    """Take a snapshot, cut the journal behind it, and go on."""
    replica.forceLogCompaction()
    for _ in range(20):
        replica.tick()


def abandoned(replica: Replica) -> ClusterState:
    """As a killed process leaves it."""
    state = replica.state
    replica.journal._disk.close()
    return state


def test_death_at_every_step_of_a_compaction_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = filled(tmp_path / "counted")
    with dying_at(None, monkeypatch) as made:
        compact(replica)
    expected = abandoned(replica)
    assert (tmp_path / "counted" / "snapshot").exists()
    assert {"open", "pwrite", "fdatasync", "rename", "fsync"} <= set(made)
    for step in range(len(made)):
        directory = tmp_path / str(step)
        replica = filled(directory)
        with dying_at(step, monkeypatch):
            compact(replica)
        abandoned(replica)
        again = started(directory)
        assert again.state == expected, f"died at step {step}, {made[step]}"
        propose(again, 100, Report(100, ME, (Passed(NodeInfo("later", "10.1.0.99"), 1),)))
        compact(again)
        after = abandoned(again)
        assert started(directory).state == after


def test_what_was_committed_together_is_applied_a_tick_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have their turn between entries that take long; here each one does."""
    replica, ended = filled(tmp_path), list[object]()
    monkeypatch.setattr("gale.raft.replica.APPLY_S", 0.0)
    for number in range(10, 20):
        seen = Passed(NodeInfo(f"n{number}", f"10.1.0.{number}"), 1)
        proposal = Proposal(Origin(ME, 1, number), Report(number, ME, (seen,)))
        replica.submit(proposal, lambda outcome, reason: ended.append(outcome))
    applied = [replica.applied_index]
    while len(ended) < 10:
        replica.tick()
        applied.append(replica.applied_index)
    assert max(after - before for before, after in pairwise(applied)) == 1
    assert not replica.behind
    replica.journal._disk.close()
    with monkeypatch.context() as patched:
        patched.setattr("gale.raft.replica.APPLY_S", 10.0)
        assert started(tmp_path).state == replica.state
