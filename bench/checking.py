"""What checks cost, with real gale-lb in a lab: a silent node's removal, a quiet log, ten thousand nodes."""

import resource
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.crowd import address_of, name_of
from bench.deciding import Figures, spread
from bench.field import Crowd, Usage, field, pid_of, usage, wait
from bench.kernel import NodeTable
from gale.errors import LabError
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions

REMOVALS = {True: 5, False: 30}  # by `quick`
QUIET_NODES = 1_000
QUIET_S = {True: 10.0, False: 60.0}
MANY = {True: 2_000, False: 10_000}
SETTLE_S = 5.0
USAGE_S = {True: 5.0, False: 20.0}
CHECK_S = 5 / 3  # a third of the default checks_timeout
SLOW_S = 5.0
WITHIN_S = 120.0
POLL_S = 0.0005


def removal(disk: Path, quick: bool) -> Figures:
    """From a node's last check, sent to all three at once, until none of the three kernels has it any more."""
    count = REMOVALS[quick]
    options = LabOptions(nodes=1, checks_timeout="1s")
    with field(options, disk) as lab, Crowd(lab, lab.topology.lbs, count, 1 / 3) as crowd:
        crowd.wait_routing(WITHIN_S)
        time.sleep(1.0)
        with tables(lab) as kernels:
            return spread([removals_ms(crowd, kernels, [number])[0] for number in range(1, count + 1)])


def removals_ms(
    crowd: Crowd, kernels: list[NodeTable], numbers: Iterable[int], most: int = 200, within_s: float = 10
) -> list[float]:
    """Of nodes that fall silent one after the other, each without waiting for the last one's end. `most`: the highest
    number that a node of the cluster may have."""
    own = {number: [kernel.number(address_of(number), most) for kernel in kernels] for number in numbers}
    if unknown := [address_of(number) for number, entries in own.items() if None in entries]:
        raise LabError(f"{', '.join(unknown)}: not in every kernel's table")
    last_s = {number: crowd.silence(name_of(number)) for number in own}
    took: dict[int, float] = {}

    def missing() -> str | None:
        for number in own.keys() - took.keys():
            entries = zip(kernels, own[number], strict=True)
            if not any(kernel.address(entry or 0) == address_of(number) for kernel, entry in entries):
                took[number] = 1000 * (time.monotonic() - last_s[number])
        left = own.keys() - took.keys()
        return f"still there: {', '.join(map(address_of, left))}" if left else None

    wait(missing, within_s, pause_s=POLL_S)
    return [took[number] for number in own]


@contextmanager
def tables(lab: Lab) -> Iterator[list[NodeTable]]:
    found = [NodeTable(pid_of(lab, lb.name)) for lb in lab.topology.lbs]
    try:
        yield found
    finally:
        for table in found:
            table.close()


def quiet_log(disk: Path, quick: bool) -> Figures:
    """Entries of the log in a cluster where a thousand nodes check in and nothing happens."""
    options = LabOptions(nodes=1, checks_timeout="5s")
    with field(options, disk) as lab, Crowd(lab, lab.topology.lbs, QUIET_NODES, CHECK_S) as crowd:
        crowd.wait_routing(WITHIN_S)
        time.sleep(SETTLE_S)
        before = applied(lab)
        time.sleep(QUIET_S[quick])
        grown = applied(lab) - before
        return {"nodes": QUIET_NODES, "seconds": QUIET_S[quick], "commands_per_minute": 60 * grown / QUIET_S[quick]}


def applied(lab: Lab) -> int:
    """How far the log is applied, everywhere the same."""
    with lab.watch() as watch:
        servers = lab.topology.api_servers
        wait(lambda: view.missing_for_level(watch.latest, servers, "applied_index"), 10)
        entry = view.own_entry(watch.latest[servers[0]])
        assert entry is not None
        return int(entry["applied_index"])


def many(disk: Path, quick: bool) -> dict[str, Figures]:
    """Many nodes into three load balancers at two paces; then, with a core each, all of them into one at full pace.
    Open files are the bound: the crowd is one process, and gale-lb gives nodes half of those that it may have."""
    files, figures = resource.getrlimit(resource.RLIMIT_NOFILE)[1], {}
    nodes, three = min(MANY[quick], files // 2 - 10), min(MANY[quick], files // 3 - 100)
    options = LabOptions(nodes=1, checks_before_routing=1, checks_timeout="30s")
    with field(options, disk) as lab:
        with Crowd(lab, lab.topology.lbs, three, 2 * SLOW_S) as crowd:
            joined_s = crowd.wait_routing(WITHIN_S)
            time.sleep(SETTLE_S)
            slow = _pace(lab, crowd, USAGE_S[quick])
            crowd.order(f"interval {SLOW_S}")
            time.sleep(2 * SLOW_S)
            fast = _pace(lab, crowd, USAGE_S[quick])
        cpu_us = 1e6 * (fast["cores"] - slow["cores"]) / (fast["checks_per_s"] - slow["checks_per_s"])
        full = nodes / CHECK_S
        slow["joined_s"] = joined_s
        figures[f"{three:,} nodes into three, a check in 10 s"] = slow
        figures[f"{three:,} nodes into three, a check in 5 s"] = fast
        figures[f"extrapolated to {nodes:,} nodes, a check in 1.67 s"] = {
            "cpu_us_per_check": cpu_us,
            "checks_per_s": full,
            "cores": fast["cores"] + cpu_us * (full - fast["checks_per_s"]) / 1e6,
        }
    options = LabOptions(nodes=1, checks_timeout="5s")
    with field(options, disk) as lab, Crowd(lab, lab.topology.lbs[:1], nodes, CHECK_S) as crowd:
        crowd.wait_routing(WITHIN_S)
        time.sleep(SETTLE_S)
        figures[f"{nodes:,} nodes into one, a check in 1.67 s"] = _pace(lab, crowd, USAGE_S[quick])
    return figures


def _pace(lab: Lab, crowd: Crowd, seconds: float) -> Figures:
    """Of the load balancers that the crowd checks into: the mean of their CPU, the most of their memory."""
    pids = [pid_of(lab, lb.name) for lb in crowd.lbs]
    before, since = [usage(pid) for pid in pids], len(crowd.lines)
    time.sleep(seconds)
    after, lines = [usage(pid) for pid in pids], crowd.lines[since:]
    return {
        "checks_per_s": sum(line["checks"] for line in lines) / len(lines) / len(pids),
        "replies_per_s": sum(line["replies"] for line in lines) / len(lines) / len(pids),
        "cores": statistics.mean(map(cores_between, before, after)),
        "resident_mb": max(one.resident_mb for one in after),
        "reply_p50_ms": statistics.median(line["reply_p50_ms"] for line in lines),
        "reply_p99_ms": statistics.median(line["reply_p99_ms"] for line in lines),
        "reply_most_ms": max(line["reply_most_ms"] for line in lines),
        "lost": sum(line["lost"] for line in lines),
    }


def cores_between(before: Usage, after: Usage) -> float:
    return (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s)
