"""Runs by seed, in processes of their own: what a run does may depend on nothing but its seed.

Python's order of sets of strings is random unless PYTHONHASHSEED is set before it starts, and the library iterates
sets; so every run happens in a worker that was started with it.
"""

import faulthandler
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.sim.cluster import Cluster, Setting
from tests.sim.plants import PLANTS
from tests.sim.trace import Violation

ROOT = Path(__file__).parents[2]
HANGS_S = 300.0  # a run takes about a second, and waits for its turn at idle priority
GATHERED = 25  # seeds a worker takes before a fresh one goes on


@dataclass(frozen=True)
class Result:
    seed: int
    violation: str  # empty when all promises held
    hash: str
    commits: int
    acknowledged: int
    seconds: float
    last: list[str]


def run_one(seed: int, profile: str | None = None, plant: str | None = None, unplanted: bool = False) -> Result:
    """In this process. `unplanted`: in the plant's setting, without the plant."""
    began_s = time.monotonic()
    planted = PLANTS[plant] if plant else None
    cluster = Cluster(seed, planted.setting if planted else Setting.by(random.Random(f"{seed} setting"), profile))
    violation = ""
    try:
        with ExitStack() as stack:
            for patch in planted.patches() if planted and not unplanted else ():
                stack.enter_context(patch)
            cluster.run()
    except Violation as error:
        violation = f"{cluster.world.now_s:.3f} s: {error}"
    return Result(
        seed,
        violation,
        cluster.trace.hash,
        len(cluster.witness.entries),
        cluster.witness.acked,
        time.monotonic() - began_s,
        list(cluster.trace.last) if violation else [],
    )


def run_many(
    seeds: Iterable[int], profile: str | None = None, jobs: int = 2, plant: str | None = None, unplanted: bool = False
) -> Generator[Result, None, None]:
    """In workers. Results come in the order of the seeds."""
    waiting = list(seeds)
    running: list[subprocess.Popen[str]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mine, waiting = waiting[:GATHERED], waiting[GATHERED:]
                running.append(_worker(mine, profile, plant, unplanted))
            worker = running[0]
            assert worker.stdout
            for line in worker.stdout:
                yield Result(**json.loads(line))
            if worker.wait():
                raise RuntimeError(f"a worker ended with status {worker.returncode}: {worker.args!r}")
            worker.stdout.close()
            running.pop(0)
    finally:
        for worker in running:  # whoever asked has heard enough
            worker.kill()
            worker.communicate()


def command(result: Result, profile: str | None = None, plant: str | None = None) -> str:
    """What repeats a run."""
    chosen = (f" --profile '{profile}'" if profile else "") + (f" --plant {plant}" if plant else "")
    return f"python -m tests.sim --seed {result.seed} --runs 1{chosen}"


def work(seeds: list[int], profile: str | None, plant: str | None, unplanted: bool) -> None:
    """What a worker does."""
    for seed in seeds:
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        print(json.dumps(asdict(run_one(seed, profile, plant, unplanted))), flush=True)


def _worker(seeds: list[int], profile: str | None, plant: str | None, unplanted: bool) -> "subprocess.Popen[str]":
    arguments = ["--work", ",".join(map(str, seeds))]
    for name, value in (("--profile", profile), ("--plant", plant)):
        arguments += [name, value] if value else []
    arguments += ["--unplanted"] if unplanted else []
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        text=True,
    )
