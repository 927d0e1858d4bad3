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
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.sim.cluster import Cluster, Setting
from tests.sim.trace import Violation

ROOT = Path(__file__).parents[2]
HANGS_S = 60.0  # a run takes about a second
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


def run_one(seed: int, profile: str | None = None, setting: Setting | None = None) -> Result:
    """In this process."""
    began_s = time.monotonic()
    cluster = Cluster(seed, setting or Setting.by(random.Random(f"{seed} setting"), profile))
    violation = ""
    try:
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


def run_many(seeds: Iterable[int], profile: str | None = None, jobs: int = 2) -> "Iterable[Result]":
    """In workers; results come in the order in which workers end."""
    waiting = list(seeds)
    running: list[subprocess.Popen[str]] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            mine, waiting = waiting[:GATHERED], waiting[GATHERED:]
            running.append(_worker(mine, profile))
        worker = running.pop(0)
        assert worker.stdout
        with worker:
            for line in worker.stdout:
                yield Result(**json.loads(line))
        if worker.returncode:
            raise RuntimeError(f"a worker ended with status {worker.returncode}: {' '.join(map(str, worker.args))}")


def command(result: Result, profile: str | None) -> str:
    chosen = f" --profile '{profile}'" if profile else ""
    return f"python -m tests.sim --seed {result.seed} --runs 1{chosen}"


def work(seeds: list[int], profile: str | None) -> None:
    """What a worker does."""
    for seed in seeds:
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        print(json.dumps(asdict(run_one(seed, profile))), flush=True)


def _worker(seeds: list[int], profile: str | None) -> "subprocess.Popen[str]":
    arguments = ["--work", ",".join(map(str, seeds)), *(["--profile", profile] if profile else [])]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        text=True,
    )
