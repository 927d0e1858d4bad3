"""Three real replicas over PySyncObj on loopback: commit, failover, restart, and who is let in."""

import asyncio
import random
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gale.core.commands import Announce, Drain, Passed, Report
from gale.core.outcome import Applied, Rejected
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import NodeInfo
from gale.errors import ConsensusError, HostError
from gale.raft.consensus import RaftConsensus
from gale.rpc.log_codec import LogCodec

SHARED = SharedConfig(HealthPolicy(1), (Service("default", 8080, 80),))


def free_addresses(count: int) -> tuple[str, ...]:
    """Below the ports that the kernel gives to connections: one of those could take the place of a stopped listener."""
    found: list[str] = []
    while len(found) < count:
        with suppress(OSError), socket.socket() as probe:
            port = random.randrange(20_000, 30_000)
            probe.bind(("127.0.0.1", port))
            found.append(f"127.0.0.1:{port}")
    return tuple(found)


class Trio:
    """Three load balancers' consensus, each on a loopback port of its own."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        self.quorum = free_addresses(size)
        self.directory = directory
        self.running: dict[str, RaftConsensus] = {}

    async def start(self, address: str) -> RaftConsensus:
        directory = self.directory / address.replace(":", "_")
        consensus = RaftConsensus(address, self.quorum, directory, LogCodec())
        await consensus.start(changed=lambda: None)
        self.running[address] = consensus
        return consensus

    async def stop(self, address: str) -> None:
        await self.running.pop(address).stop()

    async def leader(self) -> RaftConsensus:
        """The leader, once all that run agree on it."""
        await eventually(lambda: self._agreed() is not None)
        return self.running[str(self._agreed())]

    def _agreed(self) -> str | None:
        statuses = [replica.status() for replica in self.running.values() if replica.ready]
        leaders = {status.leader for status in statuses if status.quorum}
        agreed = len(statuses) == len(self.running) and len(leaders) == 1 and leaders <= self.running.keys()
        return leaders.pop() if agreed else None

    async def all_know(self, *nodes: str) -> None:
        """All that run hold the same state, and these nodes are in it."""

        def level() -> bool:
            states = [replica.state for replica in self.running.values()]
            return all(state == states[0] for state in states) and set(nodes) <= states[0].nodes.keys()

        await eventually(level)


async def eventually(holds: Callable[[], bool], within_s: float = 8.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110  the library calls nobody back
            await asyncio.sleep(0.01)


@asynccontextmanager
async def trio(directory: Path, size: int = 3) -> AsyncIterator[Trio]:
    cluster = Trio(directory, size)
    for address in cluster.quorum:
        await cluster.start(address)
    try:
        yield cluster
    finally:
        for address in list(cluster.running):
            await cluster.stop(address)


def announce(address: str) -> Announce:
    return Announce(1, address, "127.0.0.1:5555", "0.1.0", SHARED, enforces=False, leads=True)


def passed(reporter: str, name: str, number: int) -> Report:
    return Report(2, reporter, (Passed(NodeInfo(name, f"10.1.0.{number}"), 1),))


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
        snapshot = cluster.directory / address.replace(":", "_") / "snapshot"
        await eventually(snapshot.exists)
        await cluster.stop(address)
        again = await cluster.start(address)
        await cluster.leader()
        assert again.state == before


async def test_what_was_committed_after_a_snapshot_survives_a_crash_before_the_journal_was_cut(tmp_path: Path) -> None:
    """The snapshot is renamed first and the journal cut after it; the crash is between the two."""
    async with trio(tmp_path, size=1) as cluster:
        (address,) = cluster.quorum
        directory = cluster.directory / address.replace(":", "_")
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


async def test_a_damaged_snapshot_is_no_start(tmp_path: Path) -> None:
    async with trio(tmp_path, size=1) as cluster:
        (address,) = cluster.quorum
        directory = cluster.directory / address.replace(":", "_")
        alone = await cluster.leader()
        await alone.propose(announce(address))
        alone._replica.forceLogCompaction()
        await eventually((directory / "snapshot").exists)
        await cluster.stop(address)
        whole = (directory / "snapshot").read_bytes()
        for damaged in (b"", whole[:-1], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]):
            (directory / "snapshot").write_bytes(damaged)
            with pytest.raises(HostError, match=r"damaged: .* move .* aside and start again"):
                await cluster.start(address)
        (directory / "snapshot").write_bytes(whole)
        for name in ("journal", "meta"):
            (directory / name).unlink()
        with pytest.raises(HostError, match="newer than journal and meta"):
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
        snapshot = cluster.directory / first.replace(":", "_") / "snapshot"
        await eventually(snapshot.exists)
        await leader.propose(passed(first, "later", 2))
        shutil.rmtree(cluster.directory / lost.replace(":", "_"))
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
            RaftConsensus(address, (address,), tmp_path, LogCodec())
