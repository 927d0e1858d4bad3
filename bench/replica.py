"""One load balancer's consensus without its kernel and its nodes, as a process that is told what to do and measures it.

    python bench/replica.py --me 127.0.0.11:21000 --quorum 127.0.0.11:21000,… --directory DIR [--certificates DIR]

Orders come on standard input, a line each, one after the other; every answer is a line of JSON on standard output.

    status            who leads, how far the log is applied, the longest turn of the loop since the last status
    commit N          N commands one after the other: how long each took
    flood S N         for S seconds, one report of N observations after the other: how many commands
    order S           for S seconds, one command after the other: how many
    next              one command, until it is committed: when that was (CLOCK_MONOTONIC)
    fill N            report N nodes as well, until they route
    snapshot          write one: how long it took
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

import gale
from gale.clock import SystemClock
from gale.collector import calm_the_collector
from gale.core.commands import Announce, Command, Drain, Passed, Report
from gale.core.hello import Hello
from gale.core.outcome import Applied
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import NodeInfo, Phase
from gale.errors import ConsensusError
from gale.log import Refusals, configure
from gale.raft.consensus import RaftConsensus
from gale.raft.disk import Disk
from gale.raft.tcp import TcpStreams
from gale.rpc.log_codec import LogCodec
from gale.tls import Credentials

SHARED = SharedConfig(HealthPolicy(checks_before_routing=1), (Service("default", 8080, 80),))
REPORT_MAX = 128
PROBE_S = 0.001
AGAIN_S = 0.005


def info(number: int) -> NodeInfo:
    return NodeInfo(f"node-{number}", f"10.78.{number >> 8}.{number & 255}", reports_to=3)


class Replica:
    def __init__(self, given: argparse.Namespace) -> None:
        self._me: str = given.me
        self._quorum = tuple(sorted(given.quorum.split(",")))
        self._file: Path = given.directory / "snapshot"
        self._longest_s = 0.0
        hello, disk, refusals = (
            Hello(self._me, self._quorum, SHARED),
            Disk(given.directory),
            Refusals("refused"),
        )
        ip = self._me.rpartition(":")[0]
        own = None
        if given.certificates:
            own = Credentials(*(given.certificates / name for name in ("ca.crt", f"{ip}.crt", f"{ip}.key")))
        streams = TcpStreams(self._me, self._quorum, refusals, own)
        self.consensus = RaftConsensus(hello, disk, LogCodec(), streams, SystemClock(), refusals)

    async def probe(self) -> None:
        """Note the longest turn of the loop."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(PROBE_S)
            self._longest_s = max(self._longest_s, time.monotonic() - began_s - PROBE_S)

    async def status(self) -> dict[str, Any]:
        status, longest_s = self.consensus.status(), self._longest_s
        self._longest_s = 0.0
        return {
            "leader": status.leader,
            "quorum": status.quorum,
            "ready": self.consensus.ready,
            "applied_index": status.applied_index,
            "nodes": len(self.consensus.state.nodes),
            "longest_ms": 1000 * longest_s,
        }

    async def commit(self, count: str) -> dict[str, Any]:
        taken_ms = []
        for _ in range(int(count)):
            began_s = time.perf_counter()
            await self._propose(self._nothing())
            taken_ms.append(1000 * (time.perf_counter() - began_s))
        return {"taken_ms": taken_ms}

    async def order(self, seconds: str) -> dict[str, Any]:
        return await self._count(float(seconds), self._nothing)

    async def flood(self, seconds: str, observations: str) -> dict[str, Any]:
        await self._announce()
        seen = tuple(Passed(info(number), 1) for number in range(1, int(observations) + 1))
        return await self._count(float(seconds), lambda: Report(_wall_ms(), self._me, seen))

    async def _count(self, seconds: float, command: Callable[[], Command]) -> dict[str, Any]:
        done, began_s = 0, time.monotonic()
        while time.monotonic() - began_s < seconds:
            await self._propose(command())
            done += 1
        return {"commands": done, "seconds": time.monotonic() - began_s}

    async def next(self) -> dict[str, Any]:
        await self._propose(self._nothing())
        return {"committed_s": time.monotonic()}

    async def fill(self, count: str) -> dict[str, Any]:
        await self._announce()
        for first in range(1, int(count) + 1, REPORT_MAX):
            numbers = range(first, min(first + REPORT_MAX, int(count) + 1))
            await self._propose(Report(_wall_ms(), self._me, tuple(Passed(info(number), 1) for number in numbers)))
        routing = sum(node.phase is Phase.ROUTING for node in self.consensus.state.nodes.values())
        return {"routing": routing}

    async def snapshot(self) -> dict[str, Any]:
        file = self._file
        before = file.stat().st_mtime_ns if file.exists() else 0
        began_s = time.monotonic()
        self.consensus._replica.forceLogCompaction()
        while not file.exists() or file.stat().st_mtime_ns == before:  # noqa: ASYNC110  the library calls nobody back
            await asyncio.sleep(PROBE_S)
        return {"seconds": time.monotonic() - began_s, "bytes": file.stat().st_size}

    async def _announce(self) -> None:
        api = f"{self._me.rpartition(':')[0]}:5555"
        leads = self.consensus.status().leader == self._me
        me = Announce(_wall_ms(), self._me, api, gale.__version__, SHARED, False, leads, self._quorum)
        await self._propose(me)

    def _nothing(self) -> Command:
        """A command that goes the whole way and changes nothing."""
        return Drain(_wall_ms(), "nobody", on=True)

    async def _propose(self, command: Command) -> None:
        while True:
            try:
                outcome = await self.consensus.propose(command)
            except ConsensusError:
                await asyncio.sleep(AGAIN_S)
                continue
            if isinstance(command, Report) and not isinstance(outcome, Applied):
                raise RuntimeError(f"a report came to nothing: {outcome}")
            return


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def run(given: argparse.Namespace) -> None:
    began_s = time.monotonic()
    replica = Replica(given)
    await replica.consensus.start(changed=lambda: None)
    calm_the_collector()
    probe = asyncio.create_task(replica.probe())
    say({"started_s": time.monotonic() - began_s})
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await reader.readline():
        order, *arguments = line.decode().split()
        say(await getattr(replica, order)(*arguments))
    probe.cancel()
    await replica.consensus.stop()


def say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="be one replica")
    parser.add_argument("--me", required=True, help="IP:PORT")
    parser.add_argument("--quorum", required=True, help="IP:PORT,IP:PORT,…")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--certificates", type=Path, help="ca.crt, and IP.crt and IP.key of each replica: with TLS")
    configure("info")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
