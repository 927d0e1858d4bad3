"""How fast the cluster decides, and what gale-lb costs while it does.

    sudo .venv/bin/python -m bench.control [--rounds 5] [--json FILE]

A lab of three load balancers and three nodes, checks_timeout "1s". Per round:

- removal_s: from a node's death (SIGKILL of its agent and its service) until no load balancer routes to it;
- next_commit_s: from the leader's death (SIGKILL) until another load balancer has applied a new entry of the log;
- start_s: from the start of that gale-lb until it forwards;
- level_s: from its start until its log is as far as the others';
- resident_mb: of the leader, at the end of the round.

Load balancers are asked every 20 ms, which is the error of the first, second and fourth figure.
"""

import json
import re
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gale.errors import GaleError, LabError
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.feed import Watch
from gale.lab.options import LabOptions

WITHIN_S = 20.0
QUIET_S = 1.0


def elapsed_s(missing: Callable[[], str | None]) -> float:
    """Seconds until nothing is missing."""
    began_s = time.monotonic()
    while what := missing():
        if time.monotonic() - began_s > WITHIN_S:
            raise LabError(f"after {WITHIN_S:.0f} s: {what}")
        time.sleep(0.002)
    return time.monotonic() - began_s


def applied(watch: Watch, servers: list[str]) -> int:
    """How far the log is applied on those servers, at most."""
    entries = [view.own_entry(watch.latest[server]) for server in servers]
    return max(int(entry["applied_index"]) for entry in entries if entry)


def quiet(watch: Watch, servers: list[str]) -> None:
    """Wait until the log has been the same everywhere for QUIET_S, so that its next entry is the one to measure."""

    since_s, last = time.monotonic(), -1

    def missing() -> str | None:
        nonlocal since_s, last
        behind = view.missing_for_leader(watch.latest, servers, None)
        behind = behind or view.missing_for_level(watch.latest, servers, "applied_index")
        if behind or applied(watch, servers) != last:
            since_s, last = time.monotonic(), applied(watch, servers)
        return behind or (None if time.monotonic() - since_s >= QUIET_S else "the log is not quiet")

    elapsed_s(missing)


def start_seconds(lab: Lab, name: str) -> float:
    """From now until a load balancer says in its log that it forwards."""
    began_s, written = time.time(), len(lab.log(name))
    lab.start(name)
    line = re.compile(r"timestamp=(\S+) level=info event=forwarding")
    elapsed_s(lambda: None if line.search(lab.log(name)[written:]) else f"{name} does not forward yet")
    said = line.search(lab.log(name)[written:])
    assert said is not None
    return datetime.fromisoformat(said[1]).timestamp() - began_s


def resident_mb(lab: Lab, name: str) -> float:
    notes = lab.store.read()
    assert notes is not None
    status = Path(f"/proc/{notes.processes[name]['lb'].pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def one_round(lab: Lab, watch: Watch) -> dict[str, float]:
    topology = lab.topology
    servers, nodes = list(topology.api_servers), [node.name for node in topology.node_instances]

    def routing() -> str | None:
        return view.missing_for_routing(watch.latest, servers, nodes)

    elapsed_s(routing)
    lab.kill("node-1")
    removal_s = elapsed_s(lambda: view.missing_for_removal(watch.latest, servers, "node-1"))
    lab.start("node-1")
    elapsed_s(routing)
    quiet(watch, servers)
    private = view.leader(watch.latest.values())
    first = next(lb.name for lb in topology.lbs if lb.private == private)
    resident = resident_mb(lab, first)
    others = [server for server in servers if view.host(server) != private]
    before = applied(watch, others)
    lab.kill(first)
    next_commit_s = elapsed_s(lambda: None if applied(watch, others) > before else "no new entry of the log")
    elapsed_s(lambda: view.missing_for_leader(watch.latest, others, private))
    began_s = time.monotonic()
    start_s = start_seconds(lab, first)
    elapsed_s(lambda: view.missing_for_level(watch.latest, servers, "applied_index"))
    return {
        "removal_s": removal_s,
        "next_commit_s": next_commit_s,
        "start_s": start_s,
        "level_s": time.monotonic() - began_s,
        "resident_mb": resident,
    }


def measure(rounds: int) -> dict[str, dict[str, float]]:
    lab = Lab("gale-bench")
    lab.down()
    try:
        lab.up(LabOptions(checks_timeout="1s"))
        lab.wait_routing(within_s=30)
        with lab.watch(interval_s=0.02) as watch:
            taken = [one_round(lab, watch) for _ in range(rounds)]
    finally:
        lab.down()
    return {figure: spread([one[figure] for one in taken]) for figure in taken[0]}


def spread(values: list[float]) -> dict[str, Any]:
    shown = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 2) for name, value in shown.items()}


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(rounds: int, file: Path | None) -> None:
    """How fast the cluster decides, and what gale-lb costs."""
    try:
        figures = measure(rounds)
    except GaleError as error:
        raise click.ClickException(str(error)) from error
    table = Table("figure", "median", "least", "most", box=None)
    for name, values in figures.items():
        table.add_row(name, *(str(value) for value in values.values()))
    Console(width=120).print(table)
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
