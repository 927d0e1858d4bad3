"""What several tests of faults do: load that counts, leaders, commits, and what a machine's programs use."""

import os
import re
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from e2e.waiting import until
from gale.lab import netns, view
from gale.lab.cluster import Lab
from gale.lab.feed import Orders, Traffic, Watch
from gale.lab.topology import api_server
from gale.rpc import raft_codec

RAFT_PORT = 9090
ATTACKS = Path(__file__).with_name("attacks.py")
PACED = Path(__file__).with_name("paced.lua")
RATE_LEAST = 1_000  # requests per second before the fault: a run with fewer says nothing
TRAFFIC_RATE = 100  # requests per second and load balancer, each on a connection of its own
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


@dataclass(slots=True)
class UnderLoad:
    """`rate`: requests per second before the fault. `failed`: after the end, all that failed on kept and on new
    connections."""

    traffic: Traffic
    rate: float
    failed: int = 0
    answered: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def told(self) -> str:
        return f"{self.failed} of {self.answered + self.failed} requests failed at {self.rate:.0f}/s"


@contextmanager
def under_load(lab: Lab, name: str, long: bool) -> Iterator[UnderLoad]:
    """Requests through every load balancer on new connections, and on kept ones through `name`: in the long form as
    many as go, in the short one some thousands a second, for other tests need the processors too."""
    endpoints = dict(zip((lb.name for lb in lab.topology.lbs), lab.topology.endpoints, strict=True))
    script = None if long else PACED
    with lab.traffic(rate=TRAFFIC_RATE) as traffic:
        for _ in range(3):  # neighbours are found, caches are warm; a busy machine gets another chance
            with lab.load(endpoints[name], script=script) as load:
                time.sleep(0.5)
            rate = load.end().rate
            if rate >= RATE_LEAST:
                break
        assert rate >= RATE_LEAST, f"{rate:.0f} requests/s before the fault"
        begin_s = time.monotonic()
        load = lab.load(endpoints[name], script=script)
        scene = UnderLoad(traffic, rate)
        try:
            yield scene
        finally:
            ended = load.end()
    assert traffic.final is not None
    total = traffic.between(begin_s)
    scene.failed = total.failed + ended.errors
    scene.answered = total.ok + ended.requests
    scene.failures = dict(total.failures)


def leader(lab: Lab, watch: Watch, among: Sequence[str] = (), within_s: float = 10) -> str:
    """The name of the load balancer that `among`, or all that are watched, say leads."""
    asked = servers(lab, among) if among else list(lab.servers)
    until(lambda: view.missing_for_leader(watch.latest, asked, None), within_s)
    return name_of(lab, view.leader(watch.latest[server] for server in asked))


def name_of(lab: Lab, private: str | None) -> str:
    return next(lb.name for lb in lab.topology.lbs if lb.private == private)


def others(lab: Lab, *names: str) -> list[str]:
    """The load balancers that run, but for these."""
    return [lb.name for lb in lab.topology.lbs if lb.name not in names and lab.running(lb.name)]


def servers(lab: Lab, names: Sequence[str]) -> list[str]:
    return [api_server(lab.topology.instance(name)) for name in names]


def routing(lab: Lab, watch: Watch, nodes: Sequence[str] = ()) -> str | None:
    """What is missing until these nodes, or all, route on every load balancer."""
    named = nodes or [node.name for node in lab.topology.node_instances]
    return view.missing_for_routing(watch.latest, lab.servers, named)


def until_level(watch: Watch, asked: Sequence[str], within_s: float) -> float:
    """Wait until each of these servers sees a quorum and has applied what any of them says first from now on, however
    much is committed meanwhile; returns the seconds it took."""
    began_s = time.monotonic()
    return until(lambda: _missing_for_level(watch.since(began_s), asked), within_s)


def _missing_for_level(reports: Sequence[view.Report], asked: Sequence[str]) -> str | None:
    last: dict[str, view.Report] = {}
    first: dict[str, int] = {}
    for report in reports:
        last[report.server] = report
        if report.status is not None:
            first.setdefault(report.server, report.status["applied_index"])
    now = {}
    for server in asked:
        said = last.get(server)
        if said is None or said.status is None:
            return f"{server} does not answer"
        if not said.status["quorum"]:
            return f"{server} sees no quorum"
        now[server] = said.status["applied_index"]
    goal = max(first[server] for server in asked)
    return f"applied up to {goal}: {now}" if min(now.values()) < goal else None


def answering(watch: Watch, asked: Sequence[str], since_s: float) -> str | None:
    """What is missing until these servers have said, after a monotonic time, that they see a quorum."""
    for server in asked:
        report = watch.latest.get(server)
        if report is None or report.at_s < since_s or not report.status or not report.status["quorum"]:
            return f"{server} has not answered, with a quorum"
    return None


ELECTS_S = 0.3
"""A follower that hears nothing for so long may stand for election."""


@dataclass(slots=True)
class Stillness:
    """For how long this machine gave nobody a turn, at most: that may depose a leader, and no fault has done it."""

    longest_s: float = 0.0

    @property
    def deposes(self) -> bool:
        return self.longest_s >= ELECTS_S


@contextmanager
def stillness() -> Iterator[Stillness]:
    """It is looked for by a thread that sleeps: what keeps one program of gale busy does not count."""
    found, ended = Stillness(), threading.Event()

    def look() -> None:
        before_s = time.monotonic()
        while not ended.wait(0.01):
            now_s = time.monotonic()
            found.longest_s, before_s = max(found.longest_s, now_s - before_s), now_s

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def own(watch: Watch) -> Mapping[str, Any]:
    """What the only one that is asked, on its own machine, said last."""
    (report,) = watch.said.values()
    assert report.status is not None
    return report.status


def leaderships(watch: Watch, begin_s: float) -> list[tuple[int, str]]:
    """Every (term, leader) that somebody who saw a quorum has named since then, in the order of their terms."""
    named = {
        (report.status["term"], view.host(report.status["leader"]))
        for report in watch.since(begin_s)
        if report.status and report.status["quorum"] and report.status["leader"]
    }
    return sorted(named)


def fallen(watch: Watch, since_s: float, nodes: set[str]) -> set[str]:
    """Those of some nodes that anybody has said not to route since then."""
    return {
        node
        for report in watch.since(since_s)
        for node, phase in view.phases(report).items()
        if node in nodes and phase != "routing"
    }


def undrain(lab: Lab, watch: Watch) -> None:
    """Every node that is drained gets new flows again."""
    until(lambda: None if len(watch.latest) == len(lab.servers) else "every view", within_s=10)
    statuses = [report.status for report in watch.latest.values() if report.status]
    drained = {node["id"] for status in statuses for node in status["nodes"] if node["drained"]}
    with ExitStack() as stack:
        for orders in [stack.enter_context(lab.orders([node], kinds=["undrain"], interval_s=0.1)) for node in drained]:
            until(partial(missing_order, orders), within_s=10)


def missing_order(orders: Orders, began_s: float = 0.0) -> str | None:
    """None once an order that was given after a monotonic time is done."""
    return None if orders.done(began_s) else f"an order that is done: {orders.all[-3:]}"


def transitions(lab: Lab, name: str, node: str) -> list[tuple[int, str]]:
    """Sequence and change of each transition of a node that a load balancer's log tells."""
    pattern = re.compile(rf'event="node {re.escape(node)}: ([^"]*)".*\bsequence=(\d+)')
    return [(int(found[2]), found[1]) for found in pattern.finditer(lab.log(name))]


def differing(lab: Lab, node: str) -> int:
    """Transitions of a node that two load balancers tell differently."""
    told: dict[int, set[str]] = {}
    for name in others(lab):
        for sequence, change in transitions(lab, name, node):
            told.setdefault(sequence, set()).add(change)
    return sum(len(changes) > 1 for changes in told.values())


def first_frame(lab: Lab, name: str, listener: str) -> bytes:
    """What a load balancer says first to another one: what that one says itself, but for the address."""
    to = (str(lab.topology.instance(listener).private), RAFT_PORT)
    with netns.inside(lab.topology.instance(name).namespace, lambda: socket.create_connection(to, 5)) as connection:
        hello = raft_codec.decode_hello(_read_frame(connection))
    address = f"{lab.topology.instance(name).private}:{RAFT_PORT}"
    return raft_codec.encode_hello(replace(hello, address=address))


def _read_frame(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    received = b""
    while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
        piece = connection.recv(1 << 16)
        assert piece, "it hung up"
        received += piece
    return received[4:]


def logged(lab: Lab, name: str, words: str) -> int:
    return lab.log(name).count(words)


def slow_s(took_s: Sequence[float]) -> tuple[int, float]:
    """The 99th percentile; of fewer than a thousand the 95th, for theirs would be the worst or the one before."""
    percent = 99 if len(took_s) >= 1_000 else 95
    return percent, statistics.quantiles(took_s, n=100)[percent - 1] if len(took_s) > 1 else float("inf")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process: when it was taken, seconds of CPU so far, resident bytes, open descriptors."""

    at_s: float
    cpu_s: float
    resident: int
    descriptors: int


def usage(lab: Lab, name: str) -> Usage:
    pid = lab.running(name)["lb"].pid
    folder = Path("/proc") / str(pid)
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return Usage(
        time.monotonic(),
        (int(fields[11]) + int(fields[12])) / TICKS_PER_S,
        int((folder / "statm").read_text().split()[1]) * PAGE_BYTES,
        len(list((folder / "fd").iterdir())),
    )


def children(lab: Lab, name: str) -> list[str]:
    """The command lines of what a load balancer's program has started and still runs."""
    pid = lab.running(name)["lb"].pid
    found = (Path("/proc") / str(pid) / "task").glob("*/children")
    pids = [child for file in found for child in file.read_text().split()]
    return [(Path("/proc") / child / "cmdline").read_text().replace("\0", " ") for child in pids]
