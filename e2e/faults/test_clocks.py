"""Clocks that jump: no node's health is touched, and no ban ends sooner or later."""

import time

import pytest

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.feed import Watch
from gale.lab.options import LabOptions

EXPIRY_S = 5.0
OPTIONS = LabOptions(black_list_after_fails=1, black_list_expiry="5s")
JUMP_S = 300


@pytest.mark.discards
def test_a_clock_that_jumps_bans_nobody_and_moves_no_ban(
    lab: Lab, faults: Faults, results: Results, long: bool
) -> None:
    for lb in lab.topology.lbs:
        lab.stop(lb.name)
        faults.give_clock(lb.name)
        lab.start(lb.name)
    strobes = 100 if long else 10
    with lab.watch(0.05) as watch:
        until(lambda: scenes.routing(lab, watch), within_s=STARTS_WITHIN_S)
        began_s = time.monotonic()
        lab.kill("node-2")
        until(lambda: None if standing(watch, "node-2") == {"banned"} else "a ban everywhere", within_s=10)
        banned_s = time.monotonic()
        lab.start("node-2")
        for lb in lab.topology.lbs:
            for jump in (JUMP_S, -JUMP_S):
                faults.shift_clock(lb.name, jump)
                time.sleep(0.3)
        for strobe in range(strobes):
            for lb in lab.topology.lbs:
                faults.shift_clock(lb.name, JUMP_S if strobe % 2 else -JUMP_S)
            time.sleep(0.05)
        for lb in lab.topology.lbs:
            faults.shift_clock(lb.name, 0)
        until(lambda: None if lifted(watch, banned_s) else "the end of the ban", within_s=4 * EXPIRY_S)
        lifted_s = lifted(watch, banned_s) - banned_s
        lost = scenes.fallen(watch, began_s, {"node-0", "node-1"})
    within_s = results.allowed_s(1.0)
    results.judge(
        "18 clock jumps",
        f"every wall clock by ±{JUMP_S} s, then there and back {strobes} times",
        f"0 nodes fall or are banned for it; a ban of {EXPIRY_S:g} s is lifted after that ± {within_s:g} s",
        f"fell: {sorted(lost) or 'none'}; the ban was lifted after {lifted_s:.1f} s",
        not lost and abs(lifted_s - EXPIRY_S) <= within_s,
    )


def lifted(watch: Watch, banned_s: float) -> float:
    """When the last of the load balancers first said that the ban is no more, which may be while clocks still jump; 0
    before that."""
    ended: dict[str, float] = {}
    for report in watch.since(banned_s):
        if report.status and view.phases(report).get("node-2") != "banned":
            ended.setdefault(report.server, report.at_s)
    return max(ended.values()) if len(ended) == len(watch.latest) else 0.0


def standing(watch: Watch, node: str) -> set[str]:
    return {view.phases(report).get(node, "unknown") for report in watch.latest.values() if report.status}
