"""How evenly flows are spread, and how many move when nodes change: `python -m bench.spread [--quick] [--json FILE]`.

gale's slot tables beside Maglev's and a ring (bench/hashing.py). Nothing is timed and nothing is sampled: shares and
moves are exact, and the same at every run. Runs differ in the names of the nodes, in the weights and in who goes.

- worst share: of the node that gets most by its weight, over its fair share. 1 is best.
- removal, addition: flows that have another node afterwards, over those that must: the ones of the node that went, the
  ones that the new node gets. 1 is best.
- flap: flows that are elsewhere when a node has gone and come back, of all; twenty flaps: when so many at random have,
  with up to a tenth of the nodes away at a time. None is best.
"""

import argparse
import json
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.about import about
from bench.hashing import Maglev, Ring, Scheme, Slots, Weights, moved, shares

SCHEMES: tuple[type[Slots] | type[Maglev] | type[Ring], ...] = (Slots, Maglev, Ring)
SIZES = {True: (2, 10, 100), False: (2, 3, 10, 30, 100, 300, 1_000)}  # by `quick`
RUNS = {True: 2, False: 5}
WEIGHTS = {"equal": 1, "1 to 10": 10}
CHANGES = 20


@dataclass(frozen=True)
class Line:
    contestant: str
    weights: str
    nodes: int
    figure: str
    median: float
    low: float
    high: float
    runs: int


def lines(quick: bool) -> Iterator[Line]:
    for scheme in SCHEMES:
        for weights in WEIGHTS:
            for nodes in SIZES[quick]:
                runs = [dict(figures(scheme, weights, nodes, seed)) for seed in range(RUNS[quick])]
                for figure in runs[0]:
                    yield line(scheme.name, weights, nodes, figure, [run[figure] for run in runs])


def line(contestant: str, weights: str, nodes: int, figure: str, values: Sequence[float]) -> Line:
    median, low, high = (round(value, 6) for value in (statistics.median(values), min(values), max(values)))
    return Line(contestant, weights, nodes, figure, median, low, high, len(values))


def figures(
    scheme: type[Slots] | type[Maglev] | type[Ring], weights: str, nodes: int, seed: int
) -> Iterator[tuple[str, float]]:
    chance = random.Random(f"{weights} {nodes} {seed}")
    every = {number: chance.randint(1, WEIGHTS[weights]) for number in range(1, nodes + 1)}
    total, one = sum(every.values()), scheme(seed)
    begin = one.change(every)
    yield "worst share", max(share / (every[node] / total) for node, share in shares(begin).items())

    gone = chance.choice(list(every))
    without = one.change({number: weight for number, weight in every.items() if number != gone})
    yield "removal", moved(begin, without) / shares(begin)[gone]
    again = one.change(every)
    yield "flap", moved(begin, again)
    more = one.change({**every, nodes + 1: 1})
    yield "addition", moved(again, more) / shares(more)[nodes + 1]
    yield "twenty flaps", moved(*_flapped(scheme(seed), every, chance))


def _flapped(one: Scheme, every: Weights, chance: random.Random) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Before, and after nodes have gone and come back by chance."""
    begin, away = one.change(every), set[int]()
    for _ in range(CHANGES):
        if away and (chance.random() < 0.5 or len(away) >= max(1, len(every) // 10)):
            away.remove(chance.choice(sorted(away)))
        else:
            away.add(chance.choice([number for number in every if number not in away]))
        if one.remembers:
            one.change({number: weight for number, weight in every.items() if number not in away})
    return begin, one.change(every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    made = list(lines(arguments.quick))
    for it in made:
        print(f"{it.contestant:<8}{it.weights:<9}{it.nodes:>6}  {it.figure:<14}{it.median:>10.4f}{it.high:>10.4f}")
    if arguments.json:
        noted = about("python -m bench.spread" + " --quick" * arguments.quick)
        arguments.json.write_text(json.dumps({"about": noted, "results": [asdict(it) for it in made]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
