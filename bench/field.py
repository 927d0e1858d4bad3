"""The lab of a measurement with many nodes: its load balancers' states on a real disk, and a way to the crowd.

The crowd (bench/crowd.py) stands in the switch's namespace, where all of 10.78.0.0/16 is local; the load balancers have
a route there by the operator's address.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2.iproute.linux import IPRoute

from gale.errors import LabError
from gale.lab import netns
from gale.lab.cluster import Lab
from gale.lab.feed import Feed
from gale.lab.options import LabOptions
from gale.lab.store import Store
from gale.lab.topology import OPERATOR_ADDRESS, Instance

CROWD_NET = "10.78.0.0/16"
NODE_PORT = 7070
LOCAL_TABLE = 255
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def field(options: LabOptions, disk: Path) -> Iterator[Lab]:
    """A lab of these options that runs, and is removed in the end."""
    lab = Lab("gale-bench")
    lab.down()  # what a killed measurement has left
    lab.store = Store("gale-bench", disk)
    lab.down()
    try:
        lab.up(options)
        netns.inside(lab.topology.switch_namespace, _make_local)
        for lb in lab.topology.lbs:
            netns.inside(lb.namespace, _route_to_crowd)
        lab.wait_routing(within_s=30)
        yield lab
    finally:
        lab.down()


def _make_local() -> None:
    with IPRoute() as route:
        route.route("add", dst=CROWD_NET, type="local", table=LOCAL_TABLE, scope="host", oif=1)


def _route_to_crowd() -> None:
    with IPRoute() as route:
        route.route("add", dst=CROWD_NET, gateway=OPERATOR_ADDRESS)


class Crowd(Feed):
    """Many nodes that check into these load balancers. `words` are the last second's, `total` their sums."""

    def __init__(self, lab: Lab, lbs: tuple[Instance, ...], nodes: int, interval_s: float, first: int = 1) -> None:
        self.nodes, self.lbs = nodes, lbs
        self.words: dict[str, Any] = {}
        self.lines: list[dict[str, Any]] = []
        self._silenced: dict[str, float] = {}
        servers = ",".join(f"{lb.private}:{NODE_PORT}" for lb in lbs)
        program = [sys.executable, "-P", str(Path(__file__).with_name("crowd.py")), "--servers", servers]
        given = ["--nodes", str(nodes), "--interval", str(interval_s), "--reports-to", str(len(lbs))]
        given += ["--first", str(first)]
        super().__init__(lab.topology.switch_namespace, [*program, *given], lab.store.log("crowd"), self._receive)

    def _receive(self, words: Any) -> None:
        if "silent" in words:
            self._silenced[words["silent"]] = words["last_s"]
        else:
            self.words = words
            self.lines.append(words)

    def order(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(words.encode() + b"\n")
        self._process.stdin.flush()

    def silence(self, node: str) -> float:
        """Let a node send nothing more; the moment of its last check (CLOCK_MONOTONIC)."""
        self.order(f"silence {node}")
        wait(lambda: None if node in self._silenced else f"{node} still speaks", 5)
        return self._silenced[node]

    def wait_routing(self, within_s: float) -> float:
        """Seconds until every node has heard from every load balancer that it routes."""
        wanted = self.nodes * len(self.lbs)

        def missing() -> str | None:
            if not self.running:
                raise LabError("the crowd has ended, its log says why")
            standing = self.words.get("standing", {})
            return None if standing.get("routing", 0) == wanted else f"of {wanted} conversations: {self.words}"

        return wait(missing, within_s, pause_s=0.1)


def wait(missing: Callable[[], str | None], within_s: float, pause_s: float = 0.002) -> float:
    """Seconds until nothing is missing."""
    began_s = time.monotonic()
    while what := missing():
        if time.monotonic() - began_s > within_s:
            raise LabError(f"after {within_s:.0f} s: {what}")
        time.sleep(pause_s)
    return time.monotonic() - began_s


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process so far: seconds of CPU; megabytes that are resident now."""

    at_s: float
    cpu_s: float
    resident_mb: float


def usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return Usage(time.monotonic(), cpu_s, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def pid_of(lab: Lab, name: str) -> int:
    notes = lab.store.read()
    assert notes is not None
    return notes.processes[name]["lb"].pid
