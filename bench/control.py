"""How fast the cluster decides, and what gale-lb costs while it does.

    sudo .venv/bin/python -m bench.control [--quick] [--no-tls] [--part PART]... [--disk DIR] [--json FILE]

- deciding (bench/deciding.py): three processes that are gale-lb without its kernel and its nodes, on loopback, with
  mutual TLS and journals on a real disk: commits, commands a second, the next commit after kill -9 of the leader,
  snapshots and replay with ten thousand nodes.
- removal, quiet, many (bench/checking.py): gale-lb in a lab, and a crowd of nodes (bench/crowd.py), one process that
  speaks the nodes' protocol from as many addresses. The crowd speaks it without TLS.

The machine must be quiet: figures are milliseconds of a few processes on its cores. `--quick` is a try, not a figure.
"""

import json
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench import checking, deciding
from bench.about import about
from bench.deciding import Figures
from gale.errors import GaleError

DISK = Path("/var/tmp/gale-bench")

Part = Callable[[Path, bool, bool], dict[str, Figures]]
PARTS: dict[str, Part] = {
    "deciding": deciding.measure,
    "removal": lambda disk, tls, quick: {"removal, checks_timeout 1s": checking.removal(disk, quick)},
    "quiet": lambda disk, tls, quick: {"quiet log": checking.quiet_log(disk, quick)},
    "many": lambda disk, tls, quick: checking.many(disk, quick),
}
TARGETS = {
    ("commit on the leader", "p50_ms"): 1.5,
    ("commit on the leader", "p99_ms"): 5,
    ("commit on the follower", "p50_ms"): 1.5,
    ("commit on the follower", "p99_ms"): 5,
    ("next commit", "median_ms"): 500,
    ("next commit", "most_ms"): 1_000,
    ("removal, checks_timeout 1s", "most_ms"): 1_050,
    ("quiet log", "commands_per_minute"): 0,
    ("10,000 nodes into one, a check in 1.67 s", "cores"): 1,
    ("10,000 nodes into one, a check in 1.67 s", "resident_mb"): 500,
}
TURN_MS = 50


def target(case: str, figure: str) -> float | None:
    return TURN_MS if figure == "worst_turn_ms" else TARGETS.get((case, figure))


def show(figures: dict[str, Figures]) -> None:
    table = Table("case", "figure", "value", "at most", "", box=None)
    for case, values in figures.items():
        for figure, value in values.items():
            most = target(case, figure)
            verdict = "" if most is None else "reached" if value <= most else "MISSED"
            table.add_row(case, figure, f"{value:,.2f}", "" if most is None else f"{most:g}", verdict)
    Console(width=120).print(table)


@click.command()
@click.option("--quick", is_flag=True, help="In two minutes: fewer rounds, 2,000 nodes.")
@click.option("--tls/--no-tls", default=True, show_default=True, help="Mutual TLS between the load balancers.")
@click.option("--part", "parts", multiple=True, type=click.Choice(list(PARTS)), help="Only these; all unless given.")
@click.option("--disk", type=click.Path(path_type=Path), default=DISK, show_default=True, help="Where journals go.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(quick: bool, tls: bool, parts: tuple[str, ...], disk: Path, file: Path | None) -> None:
    """How fast the cluster decides, and what gale-lb costs."""
    figures: dict[str, Figures] = {}
    disk.mkdir(parents=True, exist_ok=True)
    try:
        for part in parts or PARTS:
            taken = PARTS[part](disk, tls, quick)
            show(taken)
            figures |= taken
    except GaleError as error:
        raise click.ClickException(str(error)) from error
    if file:
        rounded = {case: {name: round(value, 3) for name, value in values.items()} for case, values in figures.items()}
        noted = about("python -m bench.control" + " --quick" * quick)
        written = {"about": noted, "tls": tls, "quick": quick, "figures": rounded}
        file.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
