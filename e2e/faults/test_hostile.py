"""What is sent by those who mean harm, at every port of a load balancer: nothing is executed, and decisions go on.

A stranger stands on the operators' machine; a listed address is that of another load balancer, whose own program goes
on beside the attack, and whose first frame the attack sends too, as somebody would who has broken in there.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab.cluster import Lab
from gale.lab.feed import Orders
from gale.lab.processes import entering

PORTS = {"raft": 9090, "checks": 7070, "api": 5555}
GROWTH_MOST = 64 << 20
WRITE_P99_S = 0.020
AGAIN_WITHIN_S = 3.0
OFFERED_PER_S = 50_000
FLOODED_P99_S = 0.050
DESCRIPTORS = 256


@dataclass(slots=True)
class Attacker:
    """Attacks on one load balancer, and what they said they did."""

    lab: Lab
    target: str
    canary: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, namespace: str, port: int, kind: str, **settings: object) -> None:
        at = f"{self.lab.topology.instance(self.target).private}:{port}"
        options = {"kind": kind, "at": at, "canary": self.canary, **settings}
        arguments = [f"--{key}={value}" for key, value in options.items()]
        # Nice: a stranger's own work is done by another machine, and must not be counted here.
        command = entering(namespace, ["nice", "-n", "19", sys.executable, "-P", str(scenes.ATTACKS), *arguments])
        self.running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def finish(self, within_s: float) -> int:
        """Wait for all of them; returns how many connections they had."""
        connected = 0
        try:
            for process in self.running:
                said, _ = process.communicate(timeout=within_s)
                assert process.returncode == 0
                connected += json.loads(said)["connected"]
        finally:
            for process in self.running:
                process.kill()
                process.wait()
            self.running.clear()
        return connected


@dataclass(slots=True)
class Watched:
    """How a load balancer was before an attack, and how far decisions came meanwhile."""

    before: scenes.Usage
    term: int
    orders: Orders
    began_s: float
    still: scenes.Stillness


@contextmanager
def attacked(lab: Lab, tmp_path: Path, target: str) -> Iterator[tuple[Attacker, Watched]]:
    attacker = Attacker(lab, target, tmp_path / "executed")
    lab.stop("node-2")  # what is ordered of a node that does not route moves no slot: it is a commit and no more
    with lab.watch(0.2, local=True) as watch:
        scenes.until_level(watch, lab.servers, within_s=10)
        term = max(report.status["term"] for report in watch.said.values() if report.status)
    with (
        scenes.stillness() as still,
        lab.orders(["node-2"], names=[target], interval_s=0.01, keep=True) as orders,
    ):
        until(lambda: None if len(orders.done()) >= 10 else "ten orders", within_s=STARTS_WITHIN_S)
        watched = Watched(scenes.usage(lab, target), term, orders, time.monotonic(), still)
        try:
            yield attacker, watched
        finally:
            attacker.finish(within_s=1)


def judge(lab: Lab, results: Results, what: str, attacker: Attacker, watched: Watched, connected: int) -> None:
    """After an attack that is over."""
    target = attacker.target
    with lab.watch(0.1, local=True) as watch:
        again_s = scenes.until_level(watch, lab.servers, within_s=10)
        term = max(report.status["term"] for report in watch.said.values() if report.status)
    growth = scenes.usage(lab, target).resident - watched.before.resident
    took = [order.took_s for order in watched.orders.all if order.began_s >= watched.began_s]
    failed = sum(order.error is not None for order in watched.orders.all)
    percent, slow_s = scenes.slow_s(took)
    executed = attacker.canary.exists() or bool(scenes.children(lab, target))
    still = watched.still.deposes
    lab.check_running(target)
    write_s, again_within_s = results.allowed_s(WRITE_P99_S), results.allowed_s(AGAIN_WITHIN_S)
    results.judge(
        "3, 17 hostile bytes",
        f"{what}: {connected} connections",
        f"0 executed, +≤ 64 MiB, write p{percent} ≤ {1000 * write_s:.0f} ms meanwhile, 0 failed, no term change,"
        f" well again ≤ {again_within_s:g} s",
        f"{int(executed)} executed, {growth / (1 << 20):+.0f} MiB,"
        f" p{percent} {1000 * slow_s:.1f} ms of {len(took)}, {failed} failed,"
        f" term {watched.term} -> {term}{', after a standstill' * still}, well after {again_s:.1f} s",
        not executed
        and growth <= GROWTH_MOST
        and slow_s <= write_s
        and not failed
        and (term == watched.term or still)
        and again_s <= again_within_s,
    )


def test_random_bytes_and_every_known_gadget_do_nothing(lab: Lab, results: Results, long: bool, tmp_path: Path) -> None:
    count = 100_000 if long else 1_000
    with attacked(lab, tmp_path, "lb-0") as (attacker, watched):
        for port in PORTS.values():
            attacker.start(lab.topology.switch_namespace, port, "gadgets")
            attacker.start(lab.topology.switch_namespace, port, "bytes", count=count)
        connected = attacker.finish(within_s=1_200)
        what = f"a stranger at every port at once, {count} random messages each and every gadget"
        judge(lab, results, what, attacker, watched, connected)


def follower_to_pose_as(lab: Lab) -> tuple[str, str]:
    """One that does not lead, for who speaks in the leader's name can have another elected; and its first frame."""
    with lab.watch(0.1, local=True) as watch:
        name = "lb-1" if scenes.leader(lab, watch) == "lb-2" else "lb-2"
    return name, scenes.first_frame(lab, name, "lb-0").hex()


def test_a_listed_address_that_lost_its_mind_does_no_more(
    lab: Lab, results: Results, long: bool, tmp_path: Path
) -> None:
    count = 20_000 if long else 300
    posed, greeting = follower_to_pose_as(lab)
    with attacked(lab, tmp_path, "lb-0") as (attacker, watched):
        place = lab.topology.instance(posed).namespace
        attacker.start(place, PORTS["raft"], "bytes", count=count)
        attacker.start(place, PORTS["raft"], "gadgets")
        attacker.start(place, PORTS["raft"], "gadgets", hello=greeting)
        attacker.start(place, PORTS["raft"], "bytes", count=count, seed=2, hello=greeting)
        attacker.start(place, PORTS["raft"], "oversize", count=2, hello=greeting)
        connected = attacker.finish(within_s=600)
        judge(lab, results, "raft port, from a listed address", attacker, watched, connected)


def test_frames_without_end_and_connections_that_say_nothing(
    lab: Lab, results: Results, long: bool, tmp_path: Path
) -> None:
    seconds = 20 if long else 3
    with attacked(lab, tmp_path, "lb-0") as (attacker, watched):
        for port in PORTS.values():
            attacker.start(lab.topology.switch_namespace, port, "oversize", count=2)
            attacker.start(lab.topology.switch_namespace, port, "slow", count=100, seconds=seconds)
        connected = attacker.finish(within_s=120)
        what = f"64 MiB frames, and 100 slow connections for {seconds} s, at every port at once"
        judge(lab, results, what, attacker, watched, connected)


def test_many_connections_and_few_descriptors(lab: Lab, results: Results, long: bool, tmp_path: Path) -> None:
    """While every descriptor is taken new connections may fail, also an operator's; what stands goes on."""
    seconds, count = (20, 700) if long else (3, 300)
    lab.stop("lb-0")
    lab.start("lb-0")
    resource.prlimit(lab.running("lb-0")["lb"].pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    attacker = Attacker(lab, "lb-0", tmp_path / "executed")
    with lab.watch(0.1, local=True) as watch:
        scenes.until_level(watch, lab.servers, within_s=STARTS_WITHIN_S)
        term = max(report.status["term"] for report in watch.said.values() if report.status)
        with (
            lab.orders(["node-1"], names=["lb-1"], interval_s=0.02) as orders,
            scenes.under_load(lab, "lb-0", long) as load,
        ):
            until(lambda: None if orders.done() else "an order", within_s=STARTS_WITHIN_S)
            before = scenes.usage(lab, "lb-0")
            for port in PORTS.values():
                attacker.start(lab.topology.switch_namespace, port, "silence", count=count, seconds=seconds)
            connected = attacker.finish(within_s=120)
            ended_s = time.monotonic()
            until(lambda: scenes.answering(watch, lab.servers, ended_s), within_s=20)
            again_s = time.monotonic() - ended_s
            lab.kill("lb-1")
            lab.start("lb-1")
            started_s = time.monotonic()
            until(lambda: scenes.answering(watch, lab.servers, started_s), within_s=STARTS_WITHIN_S)
        after = max(report.status["term"] for report in watch.said.values() if report.status)
    growth = scenes.usage(lab, "lb-0").resident - before.resident
    lab.check_running("lb-0")
    lab.stop("lb-0")  # the next test starts it again, with descriptors enough
    again_within_s = results.allowed_s(AGAIN_WITHIN_S)
    results.judge(
        "17 descriptors used up",
        f"RLIMIT_NOFILE {DESCRIPTORS}, {len(PORTS) * count:,} connections held for {seconds} s: {connected} in all",
        f"0 failed requests, +≤ 64 MiB, accepts again ≤ {again_within_s:g} s after, a peer that starts comes back",
        f"{load.failed} failed requests, {growth / (1 << 20):+.0f} MiB, accepts after {again_s:.1f} s,"
        f" the peer is back, term {term} -> {after}",
        not load.failed and growth <= GROWTH_MOST and again_s <= again_within_s,
    )


def test_a_flood_of_checks_harms_no_other_node(lab: Lab, results: Results, long: bool) -> None:
    seconds = 20 if long else 3
    target = "lb-0"
    at = f"{lab.topology.instance(target).private}:7070"
    command = [
        "nice",
        "-n",
        "19",
        sys.executable,
        "-P",
        str(scenes.ATTACKS),
        "--kind=flood",
        f"--at={at}",
        f"--seconds={seconds}",
    ]
    options = [f"--rate={OFFERED_PER_S}", "--name=node-2"]
    lab.stop("node-1")  # what is ordered of a node that does not route moves no slot: it is a commit and no more
    with lab.watch(0.1) as watch, lab.orders(["node-1"], names=[target], interval_s=0.05, keep=True) as orders:
        until(lambda: None if len(orders.done()) > 5 else "orders", within_s=10)
        before, began_s = scenes.usage(lab, target), time.monotonic()
        place = lab.topology.instance("node-2").namespace
        flood = subprocess.run(
            entering(place, [*command, *options]), capture_output=True, text=True, timeout=seconds + 20, check=True
        )
        after = scenes.usage(lab, target)
        lost = scenes.fallen(watch, began_s, {"node-0"})
        percent, slow_s = scenes.slow_s([order.took_s for order in orders.all if order.began_s >= began_s])
        failed = [order for order in orders.all if order.error]
    sent = json.loads(flood.stdout)["sent"] / seconds
    cores = (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s)
    write_s = results.allowed_s(FLOODED_P99_S)
    results.judge(
        "18 flood of checks",
        f"{OFFERED_PER_S}/s offered from one node for {seconds} s, {sent:.0f}/s taken",
        f"0 other nodes fall, ≤ 1 core, write p{percent} ≤ {1000 * write_s:.0f} ms",
        f"fell: {sorted(lost) or 'none'}; {cores:.2f} cores; p{percent} {1000 * slow_s:.1f} ms, {len(failed)} failed",
        not lost and cores <= 1.0 and slow_s <= write_s and not failed,
    )
