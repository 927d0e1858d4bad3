"""How the control plane grows: with 10 to 10,000 nodes, and with 1, 3, 5 and 7 load balancers.

    sudo .venv/bin/python -m bench.scale [--quick] [--disk DIR] [--part PART]... [--json FILE]

- deciding: replicas on loopback (bench/deciding.py), with TLS and a journal on a real disk; their number, and with
  three how many nodes the state holds: commits, the next one after kill -9 of the leader, the size of a snapshot.
- checking: gale-lb in a lab with a crowd of nodes (bench/checking.py), without TLS: what a node's removal takes beyond
  checks_timeout, CPU and memory of a load balancer.

Every point is from a run of its own; a line of the results says the median, least and most of `runs` of them. All load
balancers share the cores of one machine with the crowd, so with seven of them on two cores a figure is that machine's,
not gale's. So that ten thousand nodes fit as well, `checks_timeout` grows with their number from 500 on: no load
balancer gets many more than 1,500 checks a second.
"""

import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench.about import about
from bench.checking import SETTLE_S, WITHIN_S, cores_between, removals_ms, tables
from bench.control import DISK
from bench.deciding import certificates, next_commits, percentiles
from bench.field import Crowd, field, pid_of, usage
from bench.trio import Trio, trio
from gale.errors import GaleError
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions

LOAD_BALANCERS = {True: (1, 3), False: (1, 3, 5, 7)}  # by `quick`
NODES = {True: (10, 1_000), False: (10, 100, 1_000, 3_000, 10_000)}
USUAL_NODES = 100
COMMITS, ROUNDS = 200, {True: 2, False: 5}
KILLS = {True: 3, False: 15}
REMOVALS = {True: 3, False: 9}
USAGE_S = {True: 3.0, False: 10.0}
CHECKS_EACH_TIMEOUT = 3
NODES_EACH_SECOND = 500


@dataclass(frozen=True)
class Point:
    """One figure of one size. The median, least and most of so many runs."""

    figure: str
    unit: str
    load_balancers: int
    nodes: int
    median: float
    low: float
    high: float
    runs: int


def point(figure: str, unit: str, size: tuple[int, int], values: Sequence[float]) -> Point:
    median, low, high = (round(value, 4) for value in (statistics.median(values), min(values), max(values)))
    return Point(figure, unit, size[0], size[1], median, low, high, len(values))


def deciding(disk: Path, quick: bool) -> Iterator[Point]:
    for count in LOAD_BALANCERS[quick]:
        keys = certificates(disk / "tls", count)
        with trio(disk / "trio", keys, count) as cluster:
            yield from _decisions(cluster, (count, 0), quick)
    keys = certificates(disk / "tls")
    for nodes in sizes(quick):
        with trio(disk / "trio", keys) as cluster:
            for address in cluster.addresses:
                cluster.running[address].ask("fill", nodes)
            yield from _decisions(cluster, (3, nodes), quick)
            written = [cluster.running[address].ask("snapshot") for address in cluster.addresses]
            yield point("snapshot", "MB", (3, nodes), [int(one["bytes"]) / 1e6 for one in written])
            yield point("writing a snapshot", "s", (3, nodes), [float(one["seconds"]) for one in written])


def _decisions(cluster: Trio, size: tuple[int, int], quick: bool) -> Iterator[Point]:
    leader = cluster.leader()
    rounds = [percentiles(cluster.running[leader].ask("commit", COMMITS)["taken_ms"]) for _ in range(ROUNDS[quick])]
    for name in ("p50", "p99"):
        yield point(f"commit, {name}", "ms", size, [one[f"{name}_ms"] for one in rounds])
    if size[0] > 1:
        yield point("next commit after a kill", "ms", size, next_commits(cluster, KILLS[quick]))


def checking(disk: Path, quick: bool) -> Iterator[Point]:
    for count in LOAD_BALANCERS[quick]:
        yield from _field(disk, (count, USUAL_NODES), quick)
    for nodes in sizes(quick):
        if nodes != USUAL_NODES:
            yield from _field(disk, (3, nodes), quick)


def sizes(quick: bool) -> list[int]:
    """Open files are the bound: gale-lb gives nodes half of those that it may have."""
    return [min(nodes, open_files() // 2 - 10) for nodes in NODES[quick]]


def open_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _field(disk: Path, size: tuple[int, int], quick: bool) -> Iterator[Point]:
    """A crowd is one process, so it takes some for many nodes."""
    count, nodes = size
    timeout_s = max(1, nodes // NODES_EACH_SECOND)
    options = LabOptions(load_balancers=count, nodes=1, checks_before_routing=1, checks_timeout=f"{timeout_s}s")
    with field(options, disk) as lab, ExitStack() as stack:
        idle, alone = _used(lab, quick)
        each = (open_files() - 200) // count
        crowds = [
            stack.enter_context(
                Crowd(lab, lab.topology.lbs, min(each, nodes - first), timeout_s / CHECKS_EACH_TIMEOUT, first + 1)
            )
            for first in range(0, nodes, each)
        ]
        for crowd in crowds:
            crowd.wait_routing(WITHIN_S)
        time.sleep(SETTLE_S)
        yield point("resident before nodes come", "MB", size, alone)
        yield from _costs(lab, crowds, size, quick, statistics.median(idle))
        with tables(lab) as kernels:
            numbers = range(1, crowds[0].nodes + 1)[:: max(1, crowds[0].nodes // REMOVALS[quick])][: REMOVALS[quick]]
            took = removals_ms(crowds[0], kernels, numbers, nodes + 10, timeout_s + 10)
        yield point("removal beyond checks_timeout", "ms", size, [ms - 1000 * timeout_s for ms in took])


def _costs(lab: Lab, crowds: Sequence[Crowd], size: tuple[int, int], quick: bool, idle: float) -> Iterator[Point]:
    """Of every load balancer one value. `idle`: cores without nodes."""
    since = [len(crowd.lines) for crowd in crowds]
    cores, resident_mb = _used(lab, quick)
    lines = [crowd.lines[first:] for crowd, first in zip(crowds, since, strict=True)]
    rate = sum(sum(line["checks"] for line in own) / len(own) for own in lines) / len(cores)
    yield point("checks each second", "1/s", size, [rate])
    yield point("CPU", "cores", size, cores)
    yield point("CPU per check", "µs", size, [1e6 * (one - idle) / rate for one in cores])
    yield point("resident", "MB", size, resident_mb)
    slowest = [max(line["reply_p99_ms"] for line in own) for own in lines]
    yield point("reply to a check, p99", "ms", size, slowest)


def _used(lab: Lab, quick: bool) -> tuple[list[float], list[float]]:
    """Cores, and megabytes resident, of each load balancer, for some seconds."""
    pids = [pid_of(lab, lb.name) for lb in lab.topology.lbs]
    before = [usage(pid) for pid in pids]
    time.sleep(USAGE_S[quick])
    after = [usage(pid) for pid in pids]
    return list(map(cores_between, before, after)), [one.resident_mb for one in after]


PARTS: dict[str, Callable[[Path, bool], Iterator[Point]]] = {"deciding": deciding, "checking": checking}


@click.command()
@click.option("--quick", is_flag=True, help="In some minutes: fewer rounds and sizes. A try, not a figure.")
@click.option("--part", "parts", multiple=True, type=click.Choice(list(PARTS)), help="Only these; all unless given.")
@click.option("--disk", type=click.Path(path_type=Path), default=DISK, show_default=True, help="Where journals go.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(quick: bool, parts: tuple[str, ...], disk: Path, file: Path | None) -> None:
    """How the control plane grows with nodes and load balancers."""
    disk.mkdir(parents=True, exist_ok=True)
    table = Table("figure", "unit", "load balancers", "nodes", "median", "least", "most", "runs", box=None)
    points = []
    try:
        for part in parts or PARTS:
            for one in PARTS[part](disk, quick):
                points.append(one)
                table.add_row(*map(str, asdict(one).values()))
    except GaleError as error:
        raise click.ClickException(str(error)) from error
    Console(width=140).print(table)
    if file:
        noted = about("python -m bench.scale" + " --quick" * quick)
        file.write_text(json.dumps({"about": noted, "results": [asdict(one) for one in points]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
