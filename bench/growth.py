"""Has the packet path become slower than its committed figures say? `python -m bench.growth`, and a test of every run.

A machine that does other things as well only ever adds to a time. So every case runs many times, shortly and by turns
with its floor, the least of each is taken, and a case that is too slow is measured on, up to a bound. Programs are then
loaded again, too, for where they lie in memory makes some nanoseconds, after rests that grow, for what disturbs a
machine may go on for a minute. What is slow by chance is fast once, and what has become slower never is. Machines
differ, so a figure grows by as much as the floor of its own run has, against the floor that the committed one had.
"""

import json
import os
import sys
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass

from bench.packet import CAPACITY, MODES, Case, Figure, Timing, cases, fill, new_flows
from bench.packet_rig import Family, Rig
from bench.page import RESULTS

GROWTH = 1.2
WHOLE_NS = 2
"""The kernel tells whole nanoseconds, of a case and of its floor."""
FAMILIES = Family(4, "tcp"), Family(6, "udp")
ROUNDS, PACKETS = 10, 20_000
ATTEMPTS, LOADS = 3, 12

Row = tuple[str, int, str, str, int]


@dataclass(frozen=True)
class Growth:
    """`ns`: over the floor, the least that was seen; `most_ns`: what it may be."""

    row: Row
    ns: int
    most_ns: float

    @property
    def too_much(self) -> bool:
        return self.ns > self.most_ns

    def __str__(self) -> str:
        mode, ip, protocol, case, _ = self.row
        return f"{mode} IPv{ip} {protocol} {case}: {self.ns} ns, at most {self.most_ns:.0f}"


def row(figure: Figure) -> Row:
    return figure.mode, figure.ip, figure.protocol, figure.case, figure.flows


def committed() -> dict[Row, Figure]:
    figures = [Figure(**it) for it in json.loads((RESULTS / "packet.json").read_text())]
    return {row(figure): figure for figure in figures}


def growth(
    mode: str, path: bytes | None = None, families: Sequence[Family] = FAMILIES, slow: Set[str] = frozenset()
) -> list[Growth]:
    """Of every case of a mode with one flow. `path` stands in for the text of the packet path; the cases that it makes
    `slow` are not loaded again for their own sake."""
    groups = [(family, group) for family in families for group in _groups(mode, family)]
    grown: dict[Case, Growth] = {}
    for load in range(LOADS):
        time.sleep(load)
        rig = Rig(mode, CAPACITY, path=path)
        for family, group in groups:
            if left := [case for case in group if case not in grown or grown[case].too_much]:
                fill(rig, family, 1)
                grown |= _attempts(rig, left)
        if {case.name for case, each in grown.items() if each.too_much} <= slow:
            break
    return list(grown.values())


def _groups(mode: str, family: Family) -> list[list[Case]]:
    """Cases that are measured by turns: new flows leave nothing of those that were there."""
    return [cases(mode, family, [1]), *([[new_flows(family)]] if mode == "l4" else [])]


def _attempts(rig: Rig, left: list[Case]) -> dict[Case, Growth]:
    before, timing = committed(), Timing(rig, PACKETS)
    grown: dict[Case, Growth] = {}
    for _ in range(ATTEMPTS):
        for _ in range(ROUNDS):
            for case in left:
                timing.once(case)
        for case in left:
            family = case.family
            then = before[rig.mode, family.ip, family.protocol, case.name, case.flows]
            grown[case] = judged(then, timing.runs[case])
        left = [case for case in left if grown[case].too_much]
    return grown


def judged(then: Figure, runs: Sequence[tuple[int, int]]) -> Growth:
    """Runs are a case's nanoseconds and its floor's."""
    floor = min(floor for _, floor in runs)
    slower = max(1.0, floor / then.floor_ns)
    return Growth(row(then), min(whole for whole, _ in runs) - floor, slower * GROWTH * then.ns + WHOLE_NS)


def main() -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = [each for mode in MODES for each in growth(mode)]
    for each in found:
        print(f"{each}{', TOO MUCH' * each.too_much}")
    return any(each.too_much for each in found)


if __name__ == "__main__":
    sys.exit(main())
