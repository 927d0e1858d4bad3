"""Has the packet path become slower than the one whose figures are committed? `python -m bench.growth`, and a test of
every run.

The path as it was when bench/results/packet.json was last committed, which git knows, runs beside that of this tree, by
turns and on the same machine: how much dearer a call or a look into memory is here than where the figures were taken
does not matter then. What comes of it for the figures does: a path that this test lets pass keeps what they say.

A machine that does other things as well only ever adds to a time. So every case runs many times, shortly and by turns
with its floor, the least of each is taken, and while a case is too slow both are measured on, up to a bound. They are
then loaded again, too, for where programs and tables lie in memory makes some nanoseconds, after rests that grow, for
what disturbs a machine may go on for a minute; and judged by what is measured then, for a machine may have been faster
before. What is slow by chance is fast once, what has become slower never is.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.packet import CAPACITY, MODES, Case, Timing, cases, fill, new_flows
from bench.packet_rig import Family, Rig
from gale.dataplane.compiler import PARTS

ROOT = Path(__file__).parent.parent
FIGURES = "bench/results/packet.json"
GROWTH = 1.2
WHOLE_NS = 4
"""The kernel tells whole nanoseconds, of each of two cases and of its floor."""
FAMILIES = Family(4, "tcp"), Family(6, "udp")
ROUNDS, PACKETS = 10, 20_000
ATTEMPTS, LOADS = 3, 12
INCLUDED = re.compile(rb'^#include "([^"]+)"$', re.MULTILINE)

Runs = list[tuple[int, int]]
"""Nanoseconds of a case, and of its floor."""


@dataclass(frozen=True)
class Growth:
    """Nanoseconds over the floor, the least that was seen: `ns` of this tree, `then_ns` of the figures' path."""

    mode: str
    case: Case
    ns: int
    then_ns: int

    @property
    def most_ns(self) -> float:
        return GROWTH * self.then_ns + WHOLE_NS

    @property
    def too_much(self) -> bool:
        return self.ns > self.most_ns

    def __str__(self) -> str:
        where = f"{self.mode} IPv{self.case.family.ip} {self.case.family.protocol}"
        return f"{where} {self.case.name}: {self.then_ns} -> {self.ns} ns, at most {self.most_ns:.0f}"


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


@cache
def path_of_figures() -> bytes:
    """The text of the packet path when the figures were last committed, with its own headers in it."""
    revision = _git("log", "-1", "--format=%H", "--", FIGURES).decode().strip()
    there = set(_git("ls-tree", "--name-only", f"{revision}:bpf").decode().split())
    seen: set[str] = set()

    def text(name: str) -> bytes:
        return INCLUDED.sub(lambda found: once(found[1].decode()), _git("show", f"{revision}:bpf/{name}"))

    def once(name: str) -> bytes:
        if name in seen:
            return b""
        seen.add(name)
        return text(name).replace(b"#pragma once\n", b"")

    return b"\n".join(text(part) for part in PARTS if part in there)


def growth(
    mode: str, path: bytes | None = None, families: Sequence[Family] = FAMILIES, slow: Set[str] = frozenset()
) -> list[Growth]:
    """Of every case of a mode with one flow. `path` stands in for the text of this tree's packet path; the cases that
    it makes `slow` are not loaded again for their own sake."""
    groups = [(family, group) for family in families for group in _groups(mode, family)]
    grown: dict[Case, Growth] = {}
    for load in range(LOADS):
        time.sleep(load)
        sides = [(rig := Rig(mode, CAPACITY, path=text), Timing(rig, PACKETS)) for text in (path_of_figures(), path)]
        then, now = (timing.runs for _, timing in sides)
        for family, group in groups:
            left = [case for case in group if case not in grown or grown[case].too_much]
            for rig, _ in sides if left else ():
                fill(rig, family, 1)
            for _ in range(ATTEMPTS):
                for _ in range(ROUNDS):
                    for case in left:
                        for _, timing in sides:
                            timing.once(case)
                grown |= {case: judged(mode, case, then[case], now[case]) for case in left}
                left = [case for case in left if grown[case].too_much]
        if {case.name for case, each in grown.items() if each.too_much} <= slow:
            break
    return list(grown.values())


def _groups(mode: str, family: Family) -> list[list[Case]]:
    """Cases that are measured by turns: new flows leave nothing of those that were there."""
    return [cases(mode, family, [1]), *([[new_flows(family)]] if mode == "l4" else [])]


def judged(mode: str, case: Case, then: Runs, now: Runs) -> Growth:
    """The floor is the same program for both."""
    floor = min(floor for _, floor in (*then, *now))
    return Growth(mode, case, min(whole for whole, _ in now) - floor, min(whole for whole, _ in then) - floor)


def main() -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = [each for mode in MODES for each in growth(mode)]
    for each in found:
        print(f"{each}{', TOO MUCH' * each.too_much}")
    return any(each.too_much for each in found)


if __name__ == "__main__":
    sys.exit(main())
