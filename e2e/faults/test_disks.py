"""Disks that lose power, that are full, and whose content is damaged."""

import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.faults import scenes
from e2e.faults.history import linearizable
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import disks, view
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.orders import Order

NAMES = ("lb-0", "lb-1", "lb-2")
WRITES_AGAIN_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def can_mount() -> None:
    if reason := disks.can_mount():
        pytest.skip(f"this machine mounts no disks: {reason}")


def restart_on(lab: Lab, give: Callable[[str], None]) -> None:
    """Give every load balancer another disk."""
    for name in NAMES:
        lab.stop(name)
        give(name)
        lab.start(name)
    with lab.watch(0.1, local=True) as watch:
        scenes.until_level(watch, lab.servers, within_s=STARTS_WITHIN_S)


def cut_power_of_all(lab: Lab, faults: Faults, after_s: float, seed: int) -> tuple[list[Order], int]:
    """What operators were told before, through and after a cut of all three, and the term then."""
    with lab.orders(["node-1", "node-2"], clients=8, interval_s=0.01, reads=0.2, seed=seed) as orders:
        until(lambda: None if len(orders.done()) >= 100 else "orders", within_s=10)
        time.sleep(after_s)
        faults.cut_power(*NAMES)
        for name in NAMES:
            lab.start(name)
    with lab.watch(0.1, local=True) as watch:
        scenes.until_level(watch, lab.servers, within_s=STARTS_WITHIN_S)
        term = max(term for term, _ in scenes.leaderships(watch, 0))
    with lab.orders(["node-1", "node-2"], clients=2, count=4, reads=1.0) as reads:
        until(lambda: None if len(reads.all) == 8 else "eight answers", within_s=15)
    assert len(reads.done()) == 8, reads.all
    return [*orders.all, *reads.all], term


@pytest.mark.usefixtures("can_mount")
def test_what_was_acknowledged_survives_that_all_lose_power(
    lab: Lab, faults: Faults, results: Results, long: bool
) -> None:
    """Every order ever given is in one history: what is read after the last cut must be explained by it."""
    rounds, chance = 34 if long else 1, random.Random(4)
    restart_on(lab, faults.give_own_disk)
    for name in ("node-1", "node-2"):
        lab.stop(name)  # what is ordered of a node that does not route moves no slot, and is done soon
    told: list[Order] = []
    terms = [0]
    for number in range(rounds):
        orders, term = cut_power_of_all(lab, faults, chance.uniform(0, 0.5), seed=number)
        told += orders
        terms.append(term)
    lost = [node for node in ("node-1", "node-2") if not linearizable(told, node)]
    results.judge(
        "6 power cut",
        f"ext4 shut down under all three at once, {rounds} times",
        "0 acknowledged orders lost, terms only grow",
        f"{sum(order.error is None for order in told)} orders acknowledged, histories unexplained: {lost or 'none'},"
        f" terms {'grow' if terms == sorted(terms) else 'FELL'}",
        not lost and terms == sorted(terms),
    )


@pytest.mark.usefixtures("can_mount")
def test_a_full_disk_stops_acknowledgements_and_nothing_else(
    lab: Lab, faults: Faults, results: Results, long: bool
) -> None:
    restart_on(lab, lambda name: faults.give_small_disk(name, kilobytes=8_192))
    with lab.watch(0.05, local=True) as watch:
        first = scenes.leader(lab, watch)
        with (
            scenes.under_load(lab, first, long) as load,
            lab.orders(["node-1"], names=scenes.others(lab, first), clients=2, interval_s=0.05) as orders,
        ):
            until(lambda: None if orders.done() else "an order", within_s=10)
            ballast = [faults.fill_disk(first)]
            full_s = time.monotonic()
            rest, private = scenes.servers(lab, scenes.others(lab, first)), lab.topology.instance(first).private
            until(lambda: view.missing_for_leader(watch.latest, rest, private), within_s=10)
            led_s = time.monotonic() - full_s
            until(lambda: scenes.missing_order(orders, full_s + led_s), within_s=10)
            ballast += [faults.fill_disk(name) for name in NAMES if name != first]
            time.sleep(1)
            all_full_s = time.monotonic()
            time.sleep(2)
            acknowledged = len(orders.done(all_full_s))
            lab.check_running(*NAMES)
            for file in ballast:
                file.unlink()
            freed_s = time.monotonic()
            until(lambda: None if orders.done(freed_s) else "an order after there is room", within_s=30)
            took_s = min(order.ended_s for order in orders.done(freed_s)) - freed_s
        scenes.until_level(watch, lab.servers, within_s=20)
    results.judge(
        "14 disk full, then freed",
        "the leader's, then all three, 8 MiB tmpfs",
        f"another leads; none acknowledged while all are full; 0 failed; writes ≤ {WRITES_AGAIN_WITHIN_S:g} s after",
        f"another leads after {led_s:.1f} s, {acknowledged} acknowledged,"
        f" {load.failed} of {load.answered} requests failed, writes {took_s:.2f} s after",
        not acknowledged and not load.failed and took_s <= WRITES_AGAIN_WITHIN_S,
    )


def empty(file: Path) -> None:
    file.write_bytes(b"")


def torn(file: Path) -> None:
    """A record that was being written when the power went."""
    file.write_bytes(file.read_bytes() + file.read_bytes()[-200:-20])


def flipped(file: Path) -> None:
    """One bit of the first record, which much that was synced stands behind."""
    content = bytearray(file.read_bytes())
    content[min(60, len(content) // 2)] ^= 1
    file.write_bytes(bytes(content))


def foreign(file: Path) -> None:
    file.write_bytes(b"#!/bin/sh\n" + file.read_bytes()[10:])


def zeroed(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def garbage(file: Path) -> None:
    file.write_bytes(random.Random(5).randbytes(4_000))


REFUSED, REPAIRED, FILLED = "refuses", "cuts the torn end off", "is filled by the others"
DAMAGES = [
    ("journal", torn, REPAIRED),
    ("journal", flipped, REFUSED),
    ("snapshot", garbage, FILLED),
    ("journal", empty, REFUSED),
    ("journal", foreign, REFUSED),
    ("journal", zeroed, REPAIRED),
    ("meta", empty, REFUSED),
    ("meta", flipped, REFUSED),
]
IN_SHORT = 3


def judge_damage(lab: Lab, name: str, file: str, harm: Callable[[Path], None], expected: str) -> str:
    """What is wrong with how a load balancer starts on a damaged file; empty when nothing is."""
    lab.stop(name)
    before = len(lab.log(name))
    harm(lab.store.state(name) / file)
    if expected == REFUSED:
        result = lab.run(name, [sys.executable, "-m", "gale.cli.lb", "--config", str(lab.store.config(name))])
        lines = result.stderr.strip().splitlines() or [""]
        right = lines[-1].startswith("gale-lb: ") and file in lines[-1] and "aside" in lines[-1]
        wrong = "" if result.returncode == 1 and right and "Traceback" not in result.stderr else result.stderr
        aside = lab.store.state(name).with_name(f"{name}.{time.monotonic_ns()}")
        aside.mkdir()
        for left in lab.store.state(name).iterdir():  # what the line says is right
            shutil.move(left, aside)
    else:
        wrong = ""
    lab.start(name)
    with lab.watch(0.1, local=True) as watch:
        scenes.until_level(watch, lab.servers, within_s=STARTS_WITHIN_S)
    said = lab.log(name)[before:]
    if "Traceback" in said or (expected == REPAIRED and "torn" not in said):
        wrong = said
    return wrong


def test_a_damaged_file_is_told_as_such_and_forwarding_goes_on(lab: Lab, results: Results, long: bool) -> None:
    """On the real program; every byte of every file is a matter of tests/raft."""
    name = "lb-2"
    damages = DAMAGES if long else DAMAGES[:IN_SHORT]
    wrong = {}
    with lab.traffic([lab.topology.endpoints[0], lab.topology.endpoints[1]], rate=200) as traffic:
        for file, harm, expected in damages:
            if words := judge_damage(lab, name, file, harm, expected):
                wrong[f"{file} {harm.__name__}"] = words
    assert traffic.final is not None
    results.judge(
        "13 damage on the disk",
        ", ".join(f"{file} {harm.__name__}" for file, harm, _ in damages),
        "each classified, one line that says what to do, exit code 1, no traceback; 0 failed requests",
        f"{len(damages) - len(wrong)} of {len(damages)} right, wrong: {wrong or 'none'},"
        f" {traffic.final.total.failed} of {traffic.final.total.ok} requests failed",
        not wrong and not traffic.final.total.failed,
    )
