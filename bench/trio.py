"""Three replicas (bench/replica.py), or others as many, on loopback, journals on a real disk; started, killed, asked.

What they cost is the Raft library, gale's wire, journal and state, and nothing else: no kernel, no gRPC. So the figures
say what agreeing costs, and a replica that was killed is back in half a second.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.field import wait
from gale.errors import LabError

PORT = 21_000
LEVEL_S = 20.0


class Replica:
    def __init__(self, address: str, quorum: list[str], directory: Path, certificates: Path | None) -> None:
        self.address, self.directory = address, directory
        program = [sys.executable, "-P", str(Path(__file__).with_name("replica.py"))]
        given = ["--me", address, "--quorum", ",".join(quorum), "--directory", str(directory)]
        tls = ["--certificates", str(certificates)] if certificates else []
        with directory.with_suffix(".log").open("ab") as errors:
            self._process = subprocess.Popen(
                [*program, *given, *tls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.started_s = float(self.answer()["started_s"])

    def order(self, *words: object) -> None:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LabError(f"replica {self.address} has ended, {self.directory}.log says why")
        words: dict[str, Any] = json.loads(line)
        return words

    def ask(self, *words: object) -> dict[str, Any]:
        self.order(*words)
        return self.answer()

    def kill(self) -> float:
        """SIGKILL; the moment it was sent (CLOCK_MONOTONIC)."""
        now_s = time.monotonic()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return now_s


def addresses(replicas: int = 3) -> list[str]:
    return [f"127.0.0.{11 + number}:{PORT}" for number in range(replicas)]


class Trio:
    def __init__(self, disk: Path, certificates: Path | None = None, replicas: int = 3) -> None:
        self._disk, self._certificates = disk, certificates
        self.addresses = addresses(replicas)
        self.running: dict[str, Replica] = {}

    def directory(self, address: str) -> Path:
        return self._disk / address.replace(":", "-")

    def start(self, address: str) -> Replica:
        replica = Replica(address, self.addresses, self.directory(address), self._certificates)
        self.running[address] = replica
        return replica

    def kill(self, address: str) -> float:
        return self.running.pop(address).kill()

    def answers(self) -> list[dict[str, Any]]:
        """To the order that all that run were given."""
        return [replica.answer() for replica in self.running.values()]

    def level(self) -> None:
        self.level_ms()

    def level_ms(self) -> float:
        """Wait until all that run are ready, name one leader and have applied the same; the longest turn till then."""
        longest_ms = 0.0

        def missing() -> str | None:
            nonlocal longest_ms
            said = [replica.ask("status") for replica in self.running.values()]
            longest_ms = max(longest_ms, *(float(words["longest_ms"]) for words in said))
            if not all(words["ready"] and words["quorum"] for words in said):
                return "not all are ready"
            return None if len({(w["leader"], w["applied_index"]) for w in said}) == 1 else "they differ"

        wait(missing, LEVEL_S)
        return longest_ms

    def leader(self) -> str:
        self.level()
        return str(next(iter(self.running.values())).ask("status")["leader"])

    def longest_ms(self) -> float:
        """The longest turn of any loop since this, or a status, was asked last."""
        return max(float(replica.ask("status")["longest_ms"]) for replica in self.running.values())


@contextmanager
def trio(disk: Path, certificates: Path | None = None, replicas: int = 3) -> Iterator[Trio]:
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir(parents=True)
    cluster = Trio(disk, certificates, replicas)
    try:
        for address in cluster.addresses:
            cluster.start(address)
        cluster.level()
        yield cluster
        shutil.rmtree(disk)
    finally:
        for address in list(cluster.running):
            cluster.kill(address)
