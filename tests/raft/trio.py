"""Three real replicas over PySyncObj on loopback, whose links can be cut."""

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from gale.clock import SystemClock
from gale.core.commands import Announce, Passed, Report
from gale.core.hello import Hello
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import NodeInfo
from gale.log import Refusals
from gale.raft.consensus import RaftConsensus
from gale.raft.disk import Disk
from gale.raft.streams import Stream
from gale.raft.tcp import TcpStream, TcpStreams
from gale.rpc.log_codec import LogCodec
from gale.tls import Credentials

SHARED = SharedConfig(HealthPolicy(1), (Service("default", 8080, 80),))


PORTS_EACH = 1_000
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = itertools.cycle(range(20_000 + WORKER * PORTS_EACH, 20_000 + (WORKER + 1) * PORTS_EACH))


def free_addresses(count: int) -> tuple[str, ...]:
    """Below the ports that the kernel gives to connections: one of those could take the place of a stopped listener. Of
    those that are this worker's, each in its turn: tests that run at the same time take none of each other's."""
    found: list[str] = []
    while len(found) < count:
        port = next(_ports)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(f"127.0.0.1:{port}")
    return tuple(found)


class MuffledStream:
    """A stream that passes nothing in either direction while its load balancer is cut off."""

    def __init__(self, stream: Stream, streams: "CutStreams") -> None:
        self._stream = stream
        self._streams = streams
        self.source = stream.source
        self.identity = stream.identity
        self.unsent = 0
        self.stuck = False

    async def read(self, size: int) -> bytes:
        content = await self._stream.read(size)
        while self._streams.cut or self._streams.still or self.stuck:  # noqa: ASYNC110  as a dead cable, it tells nobody
            await asyncio.sleep(0.01)
        return content

    def write(self, content: bytes) -> None:
        if not self._streams.cut:
            self._stream.write(content)

    def abort(self) -> None:
        self._stream.abort()


class CutStreams(TcpStreams):
    """`cut`: as when the cable is pulled: nobody is told. `still`: datagrams pass, streams wait, as where packets are
    lost."""

    cut = False
    still = False

    async def serve(self, accepted: Callable[[Stream], Awaitable[None]], heard: Callable[[str, bytes], None]) -> None:
        def unless_cut(address: str, datagram: bytes) -> None:
            if not self.cut:
                heard(address, datagram)

        await super().serve(lambda stream: accepted(MuffledStream(stream, self)), unless_cut)

    def send(self, address: str, datagram: bytes) -> None:
        if not self.cut:
            super().send(address, datagram)

    async def dial(self, address: str) -> TcpStream:
        if self.cut or self.still:
            raise TimeoutError
        return MuffledStream(await super().dial(address), self)  # type: ignore[return-value]


class Trio:
    """Three load balancers' consensus, each on a loopback port of its own."""

    def __init__(self, directory: Path, size: int = 3, credentials: Credentials | None = None) -> None:
        self.credentials = credentials
        self.quorum = free_addresses(size)
        self.directory = directory
        self.running: dict[str, RaftConsensus] = {}
        self.streams: dict[str, CutStreams] = {}

    async def start(
        self, address: str, *, members: tuple[str, ...] = (), shared: SharedConfig = SHARED, enforces: bool = False
    ) -> RaftConsensus:
        members = tuple(sorted(members or self.quorum))
        refusals = Refusals("refused")
        streams = self.streams[address] = CutStreams(address, members, refusals, self.credentials)
        hello = Hello(address, members, shared, enforces)
        try:
            disk = Disk(self.directory_of(address))
            consensus = RaftConsensus(hello, disk, LogCodec(), streams, SystemClock(), refusals)
            try:
                await consensus.start(changed=lambda: None)
            except BaseException:
                await consensus.stop()
                raise
        except BaseException:
            streams.close()
            raise
        self.running[address] = consensus
        return consensus

    def directory_of(self, address: str) -> Path:
        return self.directory / address.replace(":", "_")

    async def kill(self, address: str) -> None:
        """End without a word: nobody is handed the leadership."""
        consensus = self.running.pop(address)
        if consensus._ticking:
            consensus._ticking.cancel()
        consensus._ticking = None
        await consensus.stop()

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
async def trio(directory: Path, size: int = 3, credentials: Credentials | None = None) -> AsyncIterator[Trio]:
    cluster = Trio(directory, size, credentials)
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
