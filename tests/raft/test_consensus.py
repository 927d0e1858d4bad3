"""Three real replicas over PySyncObj on loopback: commit, failover, restart, and who is let in."""

import asyncio
import os
import shutil
import socket
from pathlib import Path

import pytest

from gale.core.commands import Drain, Origin, Proposal
from gale.core.outcome import Applied, Rejected
from gale.errors import ConsensusError, HostError
from gale.log import Refusals
from gale.raft.tcp import TcpStreams
from tests.raft.trio import announce, eventually, passed, trio


async def test_what_any_of_three_proposes_all_three_hold(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        await cluster.leader()
        for number, (address, replica) in enumerate(list(cluster.running.items())):
            assert isinstance(await replica.propose(announce(address)), Applied)
            assert isinstance(await replica.propose(passed(address, f"n{number}", number)), Applied)
        await cluster.all_know("n0", "n1", "n2")


async def test_a_rejection_is_an_answer(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        outcome = await (await cluster.leader()).propose(Drain(1, "nobody", True))
        assert outcome == Rejected("no node is called nobody")


async def test_without_its_leader_the_cluster_goes_on_and_the_returning_one_is_level(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        leader = await cluster.leader()
        first = str(leader.status().leader)
        await leader.propose(announce(first))
        await cluster.stop(first)
        second = await cluster.leader()
        assert isinstance(await second.propose(passed(first, "late", 1)), Applied)
        await cluster.start(first)
        await cluster.all_know("late")


async def test_committed_commands_survive_the_stop_of_all(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        leader = await cluster.leader()
        first = str(leader.status().leader)
        await leader.propose(announce(first))
        await leader.propose(passed(first, "kept", 1))
        for address in cluster.quorum:
            await cluster.stop(address)
        for address in cluster.quorum:
            await cluster.start(address)
        await cluster.all_know("kept")


async def test_a_snapshot_carries_the_state_over_a_restart(tmp_path: Path) -> None:
    async with trio(tmp_path, size=1) as cluster:
        (address,) = cluster.quorum
        alone = await cluster.leader()
        await alone.propose(announce(address))
        await alone.propose(passed(address, "kept", 1))
        before = alone.state
        alone._replica.forceLogCompaction()
        snapshot = cluster.directory_of(address) / "snapshot"
        await eventually(snapshot.exists)
        await cluster.stop(address)
        again = await cluster.start(address)
        await cluster.leader()
        assert again.state == before


async def test_what_was_committed_after_a_snapshot_survives_a_crash_before_the_journal_was_cut(tmp_path: Path) -> None:
    """The snapshot is renamed first and the journal cut after it; the crash is between the two."""
    async with trio(tmp_path, size=1) as cluster:
        (address,) = cluster.quorum
        directory = cluster.directory_of(address)
        alone = await cluster.leader()
        await alone.propose(announce(address))
        await alone.propose(passed(address, "before", 1))
        uncut = (directory / "journal").read_bytes()
        alone._replica.forceLogCompaction()
        await eventually((directory / "snapshot").exists)
        snapshot = (directory / "snapshot").read_bytes()
        await cluster.stop(address)

        (directory / "journal").write_bytes(uncut)
        (directory / "snapshot").unlink()
        again = await cluster.start(address)
        await cluster.leader()
        await again.propose(passed(address, "after", 2))
        await cluster.stop(address)
        (directory / "snapshot").write_bytes(snapshot)

        again = await cluster.start(address)
        await cluster.leader()
        assert {"before", "after"} <= again.state.nodes.keys()


async def test_a_single_load_balancer_does_not_start_on_a_damaged_snapshot(tmp_path: Path) -> None:
    async with trio(tmp_path, size=1) as cluster:
        (address,) = cluster.quorum
        directory = cluster.directory_of(address)
        alone = await cluster.leader()
        await alone.propose(announce(address))
        alone._replica.forceLogCompaction()
        await eventually((directory / "snapshot").exists)
        await cluster.stop(address)
        whole = (directory / "snapshot").read_bytes()
        for damaged in (b"", whole[:-1], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]):
            (directory / "snapshot").write_bytes(damaged)
            with pytest.raises(HostError, match=r"damaged: .*no other load balancer to fill this one"):
                await cluster.start(address)
        (directory / "snapshot").unlink()
        with pytest.raises(HostError, match="missing, and the log begins behind it"):
            await cluster.start(address)


async def test_a_load_balancer_that_lost_everything_is_filled_by_the_others(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        leader = await cluster.leader()
        first = str(leader.status().leader)
        await leader.propose(announce(first))
        await leader.propose(passed(first, "kept", 1))
        lost = next(address for address in cluster.quorum if address != first)
        await cluster.stop(lost)
        leader._replica.forceLogCompaction()
        snapshot = cluster.directory_of(first) / "snapshot"
        await eventually(snapshot.exists)
        await leader.propose(passed(first, "later", 2))
        shutil.rmtree(cluster.directory_of(lost))
        await cluster.start(lost)
        await cluster.all_know("kept", "later")


async def test_without_a_majority_a_proposal_ends_with_an_error(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        leader = await cluster.leader()
        me = str(leader.status().leader)
        for address in cluster.quorum:
            if address != me:
                await cluster.stop(address)
        with pytest.raises(ConsensusError, match=r"not committed|not known to be committed"):
            await leader.propose(announce(me))
        await eventually(lambda: not leader.status().quorum)


async def test_a_connection_from_an_unlisted_address_is_dropped_unread(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        await cluster.leader()
        ip, _, port = cluster.quorum[0].partition(":")
        reader, writer = await asyncio.open_connection(ip, int(port), local_addr=("127.0.0.99", 0))
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.close()


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(HostError, match="Address already in use"):
            TcpStreams(address, (address,), Refusals("refused"))


async def test_what_is_proposed_in_one_turn_is_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(tmp_path) as cluster:
        leader = await cluster.leader()
        me = str(leader.status().leader)
        await leader.propose(announce(me))
        synced: list[int] = []
        fdatasync = os.fdatasync

        def counted(descriptor: int) -> None:
            synced.append(descriptor)
            fdatasync(descriptor)

        monkeypatch.setattr(os, "fdatasync", counted)
        for number in range(60):
            origin = Origin("10.9.9.9:9090", 1, number + 1)
            leader._replica.submit(Proposal(origin, passed(me, f"n{number}", number)), lambda outcome, reason: None)
        leader._tick_soon()
        await cluster.all_know(*(f"n{number}" for number in range(60)))
        assert len(synced) < 60, "three replicas, sixty commands"
