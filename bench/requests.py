"""Requests per second through one load balancer, beside the same client and nodes over plain kernel routing.

    sudo .venv/bin/python -m bench.requests [--rounds 5] [--seconds 3] [--json FILE]

One lab, three nodes, three wrk processes in the client's namespace. With gale each wrk asks the load balancer's service
address; without, each asks one node through another load balancer that has no gale program on its interfaces and just
routes. The two take turns, so that the machine's moods meet both, and the ratio is taken round by round. "kept": 24
connections that stay open; "new": a connection for every request.
"""

import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from gale.errors import GaleError, HostError
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions
from gale.lab.topology import NODE_HTTP_PORT

KINDS = {"kept": [], "new": ["-H", "Connection: close"]}
CONNECTIONS = 8  # of each of the three clients


def measure(lab: Lab, targets: list[str], kind: str, seconds: int) -> float:
    """Requests per second, all clients together. A client that saw an error other than its end raises HostError."""
    wrk = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *KINDS[kind]]
    clients = [
        subprocess.Popen(lab.command("client", [*wrk, f"http://{target}/"]), stdout=subprocess.PIPE, text=True)
        for target in targets
    ]
    total = 0.0
    for client in clients:
        said, _ = client.communicate(timeout=seconds + 30)
        rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
        if rate is None or "Socket errors" in said or "Non-2xx" in said:
            raise HostError(f"wrk failed, so there is no figure: {' '.join(said.split())}")
        total += float(rate[1])
    return total


def compare(rounds: int, seconds: int) -> list[dict[str, object]]:
    lab = Lab("gale-bench")
    lab.down()
    try:
        lab.up(LabOptions(load_balancers=2))
        lab.wait_routing(within_s=30)
        detach = [sys.executable, "-m", "gale.cli.lb", "--config", str(lab.store.config("lb-1")), "--detach"]
        lab.stop("lb-1")
        lab.run("lb-1", detach).check_returncode()
        lab.enable_kernel_routing("lb-1")
        service = lab.topology.endpoints[0]
        with_gale = [service] * 3
        routed = [f"{node.private}:{NODE_HTTP_PORT}" for node in lab.topology.node_instances]
        results = []
        for kind in KINDS:
            for targets in (with_gale, routed):  # neighbours are resolved, caches are warm
                measure(lab, targets, kind, seconds=1)
            pairs = [
                (measure(lab, with_gale, kind, seconds), measure(lab, routed, kind, seconds)) for _ in range(rounds)
            ]
            ratios = [gale / kernel for gale, kernel in pairs]
            results.append(
                {
                    "connections": kind,
                    "gale_rps": round(statistics.median(gale for gale, _ in pairs)),
                    "kernel_rps": round(statistics.median(kernel for _, kernel in pairs)),
                    "ratio": round(statistics.median(ratios), 3),
                    "spread": [round(min(ratios), 3), round(max(ratios), 3)],
                }
            )
        return results
    finally:
        lab.down()


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3, show_default=True, help="Length of one measurement.")
@click.option("--quick", is_flag=True, help="Two rounds of a second: a try, not a figure.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(rounds: int, seconds: int, quick: bool, file: Path | None) -> None:
    """Requests per second through gale and through plain kernel routing, by turns."""
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is missing: apt-get install wrk")
    try:
        results = compare(*((2, 1) if quick else (rounds, seconds)))
    except GaleError as error:
        raise click.ClickException(str(error)) from error
    table = Table("connections", "gale req/s", "kernel routing req/s", "ratio", "least and most", box=None)
    for row in results:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=120).print(table)
    if file:
        file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
