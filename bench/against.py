"""Before and after, in one run: `python -m bench.against [REVISION] [--quick] [--json FILE]`, as root.

An earlier revision of gale, by itself the last one before the costs were gone that docs/PERFORMANCE.md tells of, is
checked out beside this tree, and the two are measured by turns on the same machine:

- packets: the benchmark of this tree (bench/packet.py), over the packet path of either, with one flow and with 10,000;
- checks: a load balancer into which 2,000 nodes check in (bench/checking.py), each tree with its own nodes, for what
  these ask of a load balancer is a part of what a check costs: all CPU of gale-lb over the checks it got.

Of each case the least of the rounds is taken: what else a machine does only ever adds to a time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.about import about
from bench.packet import MODES, measure

ROOT = Path(__file__).parent.parent
REVISION = "d68878b"
ROUNDS = {True: 1, False: 2}  # by `quick`
FLOWS = (1, 10_000)
PACKET_ROUNDS, PACKETS = 3, 300_000

Key = tuple[str, ...]
Costs = dict[Key, float]


@dataclass(frozen=True)
class Change:
    """Of a packet in nanoseconds over the floor, of a check in microseconds; `case` says of what and how."""

    what: str
    case: str
    unit: str
    before: float
    after: float


def packets() -> Costs:
    """Of the packet path beside this file."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures = [each for mode in MODES for each in measure(mode, PACKET_ROUNDS, PACKETS, FLOWS)]
    return {("packet", f"{it.mode} IPv{it.ip} {it.protocol}, {it.case}", f"{it.flows:,}"): it.ns for it in figures}


def checks(figures: dict[str, dict[str, float]]) -> Costs:
    """From what bench.control says of many nodes that check into one load balancer."""
    (case,) = [name for name in figures if "into one" in name]
    return {("check", case, ""): 1e6 * figures[case]["cores"] / figures[case]["checks_per_s"]}


def run(tree: Path, *arguments: str) -> Any:
    """What `python -m ARGUMENTS --json FILE` of that tree writes."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / "figures.json"
        environment = os.environ | {"PYTHONPATH": str(tree)}
        subprocess.run([sys.executable, "-m", *arguments, "--json", str(file)], cwd=tree, env=environment, check=True)
        return json.loads(file.read_text())


def least(runs: Sequence[Costs]) -> Costs:
    return {key: min(costs[key] for costs in runs) for key in runs[0]}


def changes(before: Costs, after: Costs) -> Iterable[Change]:
    for (what, case, flows), cost in after.items():
        unit = "ns" if what == "packet" else "µs"
        label = f"{case}, {flows} flows" if flows not in ("", "0", "1") else case
        yield Change(what, label, unit, round(before[what, case, flows], 1), round(cost, 1))


def compare(revision: str, rounds: int) -> list[Change]:
    with TemporaryDirectory() as directory:
        before, path = Path(directory) / "before", Path(directory) / "path"
        for tree in (before, path):
            command = ["git", "worktree", "add", "--quiet", "--detach", str(tree), revision]
            subprocess.run(command, cwd=ROOT, check=True)
        shutil.rmtree(path / "bench")
        shutil.copytree(ROOT / "bench", path / "bench")
        found: dict[Path, list[Costs]] = {before: [], ROOT: []}
        try:
            for turn in range(rounds):
                for tree, measured in ((before, path), (ROOT, ROOT)):
                    print(f"round {turn + 1} of {rounds}: {'after' if tree == ROOT else 'before'}", flush=True)
                    costs = {tuple(key): ns for key, ns in run(measured, "bench.against", "--packets")}
                    costs |= checks(run(tree, "bench.control", "--part", "many", "--quick")["figures"])
                    found[tree].append(costs)
        finally:
            for tree in (before, path):
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
        return list(changes(least(found[before]), least(found[ROOT])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?", default=REVISION, help="what git knows the earlier gale by")
    parser.add_argument("--packets", action="store_true", help="only what packets cost here, without another revision")
    parser.add_argument("--quick", action="store_true", help="one round: a try, not a figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    if arguments.packets:
        written: object = list(packets().items())
    else:
        found = compare(arguments.revision, ROUNDS[arguments.quick])
        for each in found:
            print(f"{each.what:<8}{each.case:<60}{each.before:>8g} -> {each.after:g} {each.unit}")
        said = about(f"python -m bench.against {arguments.revision}")
        written = {"about": said, "results": [asdict(each) for each in found]}
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
