"""Packets, requests and bulk through one box: gale beside what a user would otherwise pick, by turns.

    sudo .venv/bin/python -m bench.traffic [--quick] [--rounds 5] [--json FILE] [--only requests]

One box (stand.py), and one contestant after the other in it (contestants.py), round after round, so that the machine's
moods meet all of them. What is missing of the peers is installed first (peers.py). Each figure is the median of its
rounds, with the least and the most; the aims are ratios, taken round by round.

The JSON file: {"about": …, "results": [records.py], "aims": […]}.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench import peers
from bench.about import about
from bench.asking import Ask, Figures, asked_cases
from bench.contestants import CONTESTANTS, Asked, detach_gale, versions
from bench.frames import frames
from bench.records import Record, Records, rounded, spread
from bench.stand import Stand, stand
from bench.talking import can_be_asked, talk
from gale.errors import GaleError, HostError

ROUNDS, SECONDS = 5, 2
QUICK_SECONDS = 1
PAUSE_S = 2.0
FRAMES_CASE = "64-byte frames"
LIMIT_CASE = "requests, as many as the forwarder can"


@dataclass(frozen=True, slots=True)
class Aim:
    """`contestant` beside `other`: at least so many times as much, or at most (`least` false)."""

    case: str
    metric: str
    contestant: str
    other: str
    bound: float
    least: bool = True

    def judged(self, records: Records) -> Record | None:
        """None when it was not measured."""
        ratios = list(records.ratios(self.case, self.metric, self.contestant, self.other))
        if not ratios:
            return None
        figures = spread(ratios)
        held = figures["median"] >= self.bound if self.least else figures["median"] <= self.bound
        said = f"{self.metric}: {self.contestant} over {self.other}"
        bound = {"at least" if self.least else "at most": rounded(self.bound)}
        return {"case": self.case, "aim": said, **bound, **figures, "held": held}


def cases() -> dict[str, Ask]:
    """By name, in the order in which they are measured."""
    return {**asked_cases(), LIMIT_CASE: talk}


def aims() -> list[Aim]:
    found = [Aim(FRAMES_CASE, "packets", "gale l4", "nftables", 3)]
    for name in cases():
        if name.startswith("requests"):
            found.append(Aim(name, "requests", "gale l4", "none", 0.9))
            found.append(Aim(name, "requests", "gale l4", "HAProxy", 2))
            found.append(Aim(name, "forwarder's CPU", "gale l4", "HAProxy", 0.25, least=False))
        else:
            found.append(Aim(name, "throughput", "gale l4", "none", 0.9))
    return found


def measure(
    records: Records, names: Sequence[str], wanted: str, rounds: int, seconds: int, say: Callable[[str], None]
) -> None:
    """Requests and bulk, of the cases whose names begin with what is wanted."""
    chosen = {case: ask for case, ask in cases().items() if case.startswith(wanted)}
    with stand() as box:
        detach_gale(box)
        for number in range(rounds):
            for name in names:
                say(f"round {number + 1} of {rounds}: {name}")
                with CONTESTANTS[name](box) as found:
                    box.wire()
                    for asked in found:
                        for case, ask in chosen.items():
                            if case == LIMIT_CASE and not can_be_asked(asked.contestant):
                                continue
                            records.add(case, asked.contestant, _again(ask, say)(box, asked, seconds))


def _again(ask: Ask, say: Callable[[str], None]) -> Ask:
    """A measurement that fails gets a second chance, which is told: a long run is not lost to one bad moment."""

    def asked_again(box: Stand, asked: Asked, seconds: int) -> Figures:
        try:
            return ask(box, asked, seconds)
        except HostError as error:
            say(f"{asked.contestant}, once more: {error}")
            time.sleep(PAUSE_S)
            return ask(box, asked, seconds)

    return asked_again


def table(records: Sequence[Record]) -> Table:
    shown = Table("case", "contestant", "metric", "median", "least and most", "unit", box=None)
    for it in records:
        between = f"{it['low']:g} to {it['high']:g}"
        shown.add_row(it["case"], it["contestant"], it["metric"], f"{it['median']:g}", between, it["unit"])
    return shown


def aims_table(judged: Sequence[Record]) -> Table:
    shown = Table("", "case", "aim", "bound", "median", "least and most", box=None)
    for it in judged:
        bound = f"≥ {it['at least']:g}" if "at least" in it else f"≤ {it['at most']:g}"
        mark = "held" if it["held"] else "MISSED"
        shown.add_row(mark, it["case"], it["aim"], bound, f"{it['median']:g}", f"{it['low']:g} to {it['high']:g}")
    return shown


@click.command()
@click.option("--quick", is_flag=True, help="One short round, for trying.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--contestants", default=",".join(CONTESTANTS), show_default=True)
@click.option("--only", default="", help="Cases whose names begin so.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(quick: bool, rounds: int, contestants: str, only: str, file: Path | None) -> None:
    """Gale and its peers through the same box, by turns."""
    console = Console(width=140)
    records = Records()
    rounds = 1 if quick else rounds
    try:
        peers.install()
        if FRAMES_CASE.startswith(only):
            for contestant, mpps in frames(rounds, quick):
                records.add(FRAMES_CASE, contestant, {"packets": ("Mpps", mpps)})
        if any(case.startswith(only) for case in cases()):
            measure(records, contestants.split(","), only, rounds, QUICK_SECONDS if quick else SECONDS, console.print)
    except GaleError as error:
        raise click.ClickException(str(error)) from error
    judged = [found for aim in aims() if (found := aim.judged(records))]
    console.print(table(records.all()))
    console.print(aims_table(judged))
    if file:
        said = about("python -m bench.traffic", versions())
        file.write_text(json.dumps({"about": said, "results": records.all(), "aims": judged}, indent=1) + "\n")


if __name__ == "__main__":
    main()
