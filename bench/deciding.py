"""What agreeing costs: commits, the next one after a leader is killed, replay and snapshots; three replicas."""

import os
import shutil
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.trio import Trio, addresses, trio
from gale.pki import issue, make_ca, write
from gale.tls import Identity, Role

Figures = dict[str, float]

COMMITS = {True: 300, False: 2_000}  # by `quick`
SECONDS = {True: 2, False: 5}
KILLS = {True: 5, False: 50}
NODES = 10_000
OBSERVATIONS = 128  # of a full report
REPLAYED = 1_000
BLOCK = bytes(512)


def measure(disk: Path, tls: bool, quick: bool) -> dict[str, Figures]:
    with trio(disk / "trio", certificates(disk / "tls") if tls else None) as cluster:
        return {
            "disk": sync_ms(disk),
            **commits(cluster, COMMITS[quick], SECONDS[quick]),
            "next commit": spread(next_commits(cluster, KILLS[quick])),
            **ten_thousand(cluster),
        }


def certificates(directory: Path, replicas: int = 3) -> Path:
    """A new authority, and a pair for each replica."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    now = datetime.now(UTC)
    authority = make_ca(now)
    write(directory, "ca", authority)
    for address in addresses(replicas):
        ip = address.rpartition(":")[0]
        write(directory, ip, issue(authority, Identity(Role.LOAD_BALANCER, ip), now))
    return directory


def sync_ms(directory: Path, rounds: int = 200) -> Figures:
    """What one fdatasync of half a kilobyte costs here, which no commit can be faster than."""
    file = directory / "sync"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    taken = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        os.write(descriptor, BLOCK)
        os.fdatasync(descriptor)
        taken.append(1000 * (time.perf_counter() - began_s))
    os.close(descriptor)
    file.unlink()
    return percentiles(taken)


def commits(cluster: Trio, count: int, seconds: int) -> dict[str, Figures]:
    leader = cluster.leader()
    follower = next(address for address in cluster.addresses if address != leader)
    figures = {}
    for where, address in (("leader", leader), ("follower", follower)):
        figures[f"commit on the {where}"] = percentiles(cluster.running[address].ask("commit", count)["taken_ms"])
    for replica in cluster.running.values():
        replica.order("order", seconds)
    rates = [answer["commands"] / answer["seconds"] for answer in cluster.answers()]
    alone = cluster.running[leader].ask("order", seconds)
    reports = cluster.running[leader].ask("flood", seconds, OBSERVATIONS)
    figures["commands"] = {
        "per_s": sum(rates),
        "leader_alone_per_s": alone["commands"] / alone["seconds"],
        "observations_per_s": OBSERVATIONS * reports["commands"] / reports["seconds"],
    }
    return figures


def next_commits(cluster: Trio, kills: int) -> list[float]:
    """From the leader's SIGKILL to the first command committed by another, which was proposed at once and waits; ms."""
    taken_ms = []
    for _ in range(kills):
        leader = cluster.leader()
        killed_s = cluster.kill(leader)
        for replica in cluster.running.values():
            replica.order("next")
        committed_s = min(float(answer["committed_s"]) for answer in cluster.answers())
        taken_ms.append(1000 * (committed_s - killed_s))
        cluster.start(leader)
    return taken_ms


def ten_thousand(cluster: Trio) -> dict[str, Figures]:
    """With NODES nodes routing: a snapshot, a start from it, a start with entries behind it, a replica that is filled.

    Every `worst_turn_ms` is the longest turn of any of the three loops meanwhile."""
    cluster.longest_ms()
    joined = [cluster.running[address].ask("fill", NODES)["routing"] for address in cluster.addresses]
    if joined[-1] != NODES:
        raise RuntimeError(f"{joined[-1]} of {NODES} nodes route")
    figures = {"joining": {"worst_turn_ms": cluster.level_ms()}}
    written = [cluster.running[address].ask("snapshot") for address in cluster.addresses]
    figures["snapshot"] = {
        "seconds": max(float(one["seconds"]) for one in written),
        "megabytes": max(int(one["bytes"]) for one in written) / 1e6,
        "worst_turn_ms": cluster.longest_ms(),
    }
    leader = cluster.leader()
    follower = next(address for address in cluster.addresses if address != leader)
    figures["start from the snapshot"] = again(cluster, follower)
    cluster.running[leader].ask("commit", REPLAYED)
    figures[f"start, replaying {REPLAYED:,} entries"] = again(cluster, follower)
    figures["start empty, filled by the others"] = again(cluster, follower, wiped=True)
    return figures


def again(cluster: Trio, address: str, wiped: bool = False) -> Figures:
    """From the start of a killed replica's program until it is level: interpreter and imports (`program_s`), its own
    start, in which it serves nobody yet, and then turns of the loop."""
    cluster.kill(address)
    if wiped:
        shutil.rmtree(cluster.directory(address))
    cluster.longest_ms()
    began_s = time.monotonic()
    started = cluster.start(address)
    up_s = time.monotonic()
    worst_ms = cluster.level_ms()
    return {
        "seconds": time.monotonic() - began_s,
        "program_s": up_s - began_s - started.started_s,
        "own_start_ms": 1000 * started.started_s,
        "worst_turn_ms": worst_ms,
    }


def percentiles(values: list[float]) -> Figures:
    ordered = sorted(values)
    return {
        "p50_ms": statistics.median(ordered),
        "p99_ms": ordered[int(0.99 * (len(ordered) - 1))],
        "most_ms": ordered[-1],
    }


def spread(values: list[float]) -> Figures:
    return {"median_ms": statistics.median(values), "least_ms": min(values), "most_ms": max(values)}
