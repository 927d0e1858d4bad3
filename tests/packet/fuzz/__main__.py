"""Throws frames at the packet path and compares every one with the model: `python -m tests.packet.fuzz --inputs N`.

Processes share the epochs, one on each CPU. Ends with 1 and prints the seed, the epoch and the least sequence of frames
that shows it when the packet path and the model disagree; `--epoch` runs that one alone.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from gale.dataplane.compiler import source
from tests.packet.fuzz.cast import CASTS
from tests.packet.fuzz.hunt import EPOCH, Hunt
from tests.packet.fuzz.rig import Rig

ROOT = Path(__file__).parents[3]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epoch", type=int, help="this one only")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes, one on each CPU")
    parser.add_argument("--cast", choices=CASTS, default="all", help="what the load balancer serves")
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.epoch is not None:
        return hunt(arguments.cast, arguments.seed, range(arguments.epoch, arguments.epoch + 1))
    epochs = -(-arguments.inputs // EPOCH)
    if arguments.share is not None:
        return hunt(arguments.cast, arguments.seed, range(arguments.share, epochs, arguments.jobs))
    return together(arguments.cast, arguments.seed, arguments.inputs, arguments.jobs)


def together(cast: str, seed: int, inputs: int, jobs: int) -> int:
    """Each share in a process; all end when one fails."""
    cpus = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "tests.packet.fuzz", "--cast", cast, "--seed", str(seed), "--inputs", str(inputs)]
    shares = []
    for share in range(jobs):
        pinned = ["taskset", "-c", str(cpus[share % len(cpus)])]
        shares.append(subprocess.Popen([*pinned, *command, "--jobs", str(jobs), "--share", str(share)], cwd=ROOT))
    status = 0
    for process in shares:
        if process.wait() and not status:
            status = process.returncode
            for other in shares:
                other.terminate()
    return status


def again(cast: str, seed: int, epoch: int) -> str:
    """What repeats an epoch."""
    return f"again: python -m tests.packet.fuzz --cast {cast} --seed {seed} --epoch {epoch}"


def hunt(cast: str, seed: int, epochs: range) -> int:
    begin = time.monotonic()
    here = Hunt(Rig(CASTS[cast].settings, source()), seed, CASTS[cast])
    compiled = time.monotonic()
    for number in epochs:
        if failure := here.epoch(number):
            print(failure)
            print(again(cast, seed, number))
            return 1
    elapsed = time.monotonic() - compiled
    print(
        f"{here.inputs} inputs in {elapsed:.1f} s, {here.inputs / elapsed:.0f}/s; ready after {compiled - begin:.1f} s"
    )
    print(f"{here.opened} flows, of which {here.moved} got another port than their client's though it was free")
    print(", ".join(f"{name} {count}" for name, count in Counter(here.verdicts).most_common()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
