"""python -m tests.sim --seed S --runs N [--profile P] [--jobs 2]: simulate, and say which seeds break a promise."""

import argparse
import sys
import time

from tests.sim.nemesis import PROFILES
from tests.sim.plants import PLANTS
from tests.sim.run import command, run_many, work


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("--profile", choices=sorted(PROFILES), help="one kind of faults; by seed when not given")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with a fault planted in gale, in its own setting")
    parser.add_argument("--unplanted", action="store_true", help="in the setting of --plant, but without it")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--last", type=int, default=20, help="how many of the last events of a failing run to print")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work([int(seed) for seed in given.work.split(",")], given.profile, given.plant, given.unplanted)
        return 0
    began_s, runs, commits, acknowledged, broken = time.monotonic(), 0, 0, 0, 0
    for result in run_many(
        range(given.seed, given.seed + given.runs), given.profile, given.jobs, given.plant, given.unplanted
    ):
        runs, commits, acknowledged = runs + 1, commits + result.commits, acknowledged + result.acknowledged
        if result.violation:
            broken += 1
            print(f"\nseed {result.seed}: {result.violation}\n  {command(result, given.profile, given.plant)}")
            print("\n".join(f"    {line[:200]}" for line in result.last[len(result.last) - given.last :]), flush=True)
    seconds = time.monotonic() - began_s
    print(
        f"{runs} runs, {broken} with a violation; {commits} commits, {acknowledged} acknowledged;"
        f" {seconds:.1f} s, {runs / seconds:.2f} runs a second"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
