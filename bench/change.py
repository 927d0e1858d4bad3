"""What clients notice of changes: requests that fail, and how long the others take, through gale and through HAProxy.

    sudo .venv/bin/python -m bench.change [--quick] [--rounds 3] [--json FILE]

Three load balancers, three nodes. Beside each gale-lb runs an HAProxy (proxies.py) over the same nodes: each act
(acts.py) happens to all of them in the same moment. Clients ask through the first load balancer all the while: so many
requests a second, each on a connection of its own, and on connections that are kept, again and again. What happens
within six seconds of the act's beginning counts, which is longer than any request waits.

    failed requests          of those on connections of their own
    last of them             when it was asked, after the act's beginning: until then a dead node got requests
    slowest                  of the requests that were answered
    broken connections       of those that are kept; `of living nodes`: whose node had not died

The JSON file: {"about": …, "results": [records.py], "aims": […]}.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from bench import peers
from bench.about import about
from bench.acts import Act, Scene, acts, wait_whole
from bench.contestants import versions
from bench.proxies import PORT, Proxies
from bench.records import Record, Records
from bench.traffic import aims_table, table
from gale.errors import GaleError, LabError
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.feed import Flows, Traffic
from gale.lab.flows import Broken
from gale.lab.options import LabOptions
from gale.lab.tally import Tally, sum_of
from gale.lab.topology import endpoint

ROUNDS, WINDOW_S = 3, 6.0
RATE, CONCURRENCY, KEPT = 200.0, 64, 60
MODES = ("l4", "l2")
PREFIX = "gale-change"


@dataclass(frozen=True, slots=True)
class Aim:
    """No more of a metric than `most` in any round."""

    case: str
    contestant: str
    metric: str
    most: float

    def judged(self, records: list[Record]) -> Record | None:
        for it in records:
            if (it["case"], it["contestant"], it["metric"]) == (self.case, self.contestant, self.metric):
                figures = {key: it[key] for key in ("median", "low", "high", "runs")}
                said = f"{self.contestant}: {self.metric}"
                return {
                    "case": self.case,
                    "aim": said,
                    "at most": self.most,
                    **figures,
                    "held": it["high"] <= self.most,
                }
        return None


def aims() -> list[Aim]:
    """What a dead node held is lost, and no more: no request later than it takes to miss the node's checks."""
    found = []
    for act in acts():
        for mode in MODES:
            contestant = f"gale {mode}"
            if act.dead:
                found.append(Aim(act.name, contestant, "last failed request", 1.2))
            else:
                found.append(Aim(act.name, contestant, "failed requests", 0))
            found.append(Aim(act.name, contestant, "broken connections of living nodes", 0))
    return found


def figures(
    tallies: Sequence[Tally], broken: Sequence[Broken], began_s: float, dead: str
) -> Mapping[str, tuple[str, float]]:
    """Of one contestant and one act; a tally lists a few failures only, so there is one for each short while."""
    tally = sum_of(tallies)
    slowest = tally.percentile_ms(100)
    last = max((failure.started_s - began_s for it in tallies for failure in it.listed), default=0.0)
    return {
        "failed requests": ("", float(tally.failed)),
        "last failed request": ("s", max(0.0, last)),
        "p99": ("ms", tally.percentile_ms(99) or 0.0),
        "slowest": ("ms", slowest or 0.0),
        "broken connections": ("", float(len(broken))),
        "broken connections of living nodes": ("", float(sum(not dead or it.node != dead for it in broken))),
    }


def look(scene: Scene, endpoints: Mapping[str, str], act: Act) -> dict[str, Mapping[str, tuple[str, float]]]:
    """One act, by contestant."""
    act.before(scene)
    lab = scene.lab
    with ExitStack() as stack:
        kept = {name: stack.enter_context(lab.flows(at, KEPT, interval_s=0.1)) for name, at in endpoints.items()}
        load = lab.traffic(list(endpoints.values()), rate=RATE, concurrency=CONCURRENCY, interval_s=0.1)
        stack.enter_context(load)
        _wait_asked(kept, load)
        began_s = time.monotonic()
        act.begin(scene)
        time.sleep(max(0.0, began_s + WINDOW_S - time.monotonic()))
        found = {}
        for name, at in endpoints.items():
            tallies = [it.endpoints[at] for it in load.samples.copy() if it.at_s - it.interval_s >= began_s]
            broken = [it for it in kept[name].broken if it.at_s >= began_s]
            found[name] = figures(tallies, broken, began_s, act.dead)
    act.after(scene)
    wait_whole(scene)
    return found


def _wait_asked(kept: Mapping[str, Flows], load: Traffic) -> None:
    """Until every connection is open, and requests have gone through everywhere."""
    deadline = time.monotonic() + 15
    while True:
        opened = {name: flows.last.alive if flows.last else 0 for name, flows in kept.items()}
        asked = {name: tally.ok for name, tally in load.totals.items()}
        if all(count == KEPT for count in opened.values()) and asked and all(asked.values()):
            return
        if time.monotonic() > deadline:
            raise LabError(f"not all connections are open, or not all requests are answered: {opened}, {asked}")
        time.sleep(0.02)


def measure(records: Records, rounds: int, wanted: str, say: Callable[[str], None]) -> None:
    lab = Lab(PREFIX)
    lab.down()
    try:
        lab.up(LabOptions(load_balancers=3, nodes=3, modes=MODES, virtual=True))
        scene = Scene(lab, Faults(lab), Proxies(lab))
        lab.wait_routing(within_s=30)
        for lb in lab.topology.lbs:
            scene.proxies.start(lb.name)
        wait_whole(scene)
        first = lab.topology.lbs[0]
        endpoints = {f"gale {mode}": endpoint(first, lab.options.service(mode).port) for mode in MODES}
        endpoints["HAProxy"] = endpoint(first, PORT)
        for number in range(rounds):
            for act in acts():
                if act.name.startswith(wanted):
                    say(f"round {number + 1} of {rounds}: {act.name}")
                    for contestant, found in look(scene, endpoints, act).items():
                        records.add(act.name, contestant, found)
    finally:
        lab.down()


@click.command()
@click.option("--quick", is_flag=True, help="One round, for trying.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--only", default="", help="Acts whose names begin so.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(quick: bool, rounds: int, only: str, file: Path | None) -> None:
    """What clients notice of changes, through gale and through HAProxy."""
    console = Console(width=140)
    records = Records()
    try:
        peers.install()
        measure(records, 1 if quick else rounds, only, console.print)
    except GaleError as error:
        raise click.ClickException(str(error)) from error
    found = records.all()
    judged = [one for aim in aims() if (one := aim.judged(found))]
    console.print(table(found))
    console.print(aims_table(judged))
    if file:
        said = about("python -m bench.change", versions())
        file.write_text(json.dumps({"about": said, "results": found, "aims": judged}, indent=1) + "\n")


if __name__ == "__main__":
    main()
