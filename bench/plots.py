"""Pictures of what stands in bench/results/, as SVG beside it: `python -m bench.page` writes them. Pure functions."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.svg import Axis, Extent, bars, lines
from bench.tables import Figure, grown

Results = Mapping[str, Any]
"""What stands in the files of results that there are, by their names."""

USUAL = ("l2", "l3", "l4")
SCALE_FIGURES = {
    "commit": ("Time of a commit", ("commit, p50", "commit, p99")),
    "failover": ("From the leader's kill -9 to the next commit", ("next commit after a kill",)),
    "removal": ("A node's removal from all kernels, beyond checks_timeout", ("removal beyond checks_timeout",)),
    "check": ("CPU of a load balancer for each check", ("CPU per check",)),
    "memory": ("Resident memory of a load balancer", ("resident", "resident before nodes come")),
}


def plots(results: Results) -> dict[str, str]:
    """By the file's name."""
    made: dict[str, str] = {}
    if "packet" in results:
        made |= _packets(results["packet"])
    if "spread" in results:
        made |= _spread(results["spread"]["results"])
    if "scale" in results:
        made |= _scale(results["scale"]["results"])
    for name in ("traffic", "change"):
        if name in results:
            made |= _contest(name, results[name]["results"])
    return made


def _packets(figures: Sequence[Figure]) -> Iterator[tuple[str, str]]:
    usual = [it for it in figures if (it["ip"], it["protocol"]) == (4, "tcp") and it["flows"]]
    series: dict[str, list[tuple[float, Extent]]] = {}
    for it in usual:
        if it["case"] in ("established", "back to the client"):
            back = "" if it["case"] == "established" else ", back to the client"
            series.setdefault(f"{it['mode']}{back}", []).append((it["flows"], _around(it)))
    across = Axis("flows that take turns", log=True)
    title = "A packet's cost over the flows, IPv4 TCP"
    yield "packet-flows.svg", lines(title, across, Axis("ns over the empty program"), series)

    cases = (
        "established",
        "back to the client",
        "back, verified by the card",
        "new",
        "no service",
        "malformed",
        "parse only",
    )
    one = [it for it in figures if it["protocol"] == "tcp" and it["flows"] <= 1]
    found = {(it["mode"], it["ip"], it["case"]): _around(it) for it in one}
    shown = {
        f"{mode}, IPv{version}": [found.get((mode, version, case)) for case in cases]
        for mode in USUAL
        for version in (4, 6)
    }
    title = "A packet's cost by what becomes of it, one flow, TCP"
    yield "packet-cases.svg", bars(title, cases, Axis("ns over the empty program"), shown)


def _around(it: Figure) -> Extent:
    """A quarter of the runs lies above, a quarter below."""
    return it["ns"], it["ns"] - it["spread"] / 2, it["ns"] + it["spread"] / 2


def _spread(results: Sequence[Figure]) -> Iterator[tuple[str, str]]:
    for figure, title in (
        ("worst share", "The worst share of flows over its fair share"),
        ("removal", "Flows moved by a removal over those that must"),
        ("addition", "Flows moved by an addition over those that must"),
    ):
        series: dict[str, list[tuple[float, Extent]]] = {}
        for it in results:
            if it["figure"] == figure:
                series.setdefault(f"{it['contestant']}, weights {it['weights']}", []).append((it["nodes"], extent(it)))
        name = f"spread-{figure.replace(' ', '-')}.svg"
        yield name, lines(title, Axis("nodes", log=True), Axis("times"), series)


def _scale(results: Sequence[Figure]) -> Iterator[tuple[str, str]]:
    for name, (title, figures) in SCALE_FIGURES.items():
        for over in ("load_balancers", "nodes"):
            series: dict[str, list[tuple[float, Extent]]] = {}
            for it in grown(results, over):
                if it["figure"] in figures:
                    series.setdefault(it["figure"], []).append((it[over], extent(it)))
            if series:
                unit = next(it["unit"] for it in results if it["figure"] in figures)
                across = Axis(over.replace("_", " "), log=over == "nodes")
                yield f"scale-{name}-{over.replace('_', '-')}.svg", lines(title, across, Axis(unit), _sorted(series))


def _sorted(series: dict[str, list[tuple[float, Extent]]]) -> dict[str, list[tuple[float, Extent]]]:
    return {name: sorted(points) for name, points in series.items()}


def _contest(name: str, results: Sequence[Figure]) -> Iterator[tuple[str, str]]:
    """A picture for each metric: the cases beside each other, a bar for each contestant."""
    for metric, unit in dict.fromkeys((it["metric"], it["unit"]) for it in results):
        chosen = [it for it in results if (it["metric"], it["unit"]) == (metric, unit)]
        cases = list(dict.fromkeys(it["case"] for it in chosen))
        found = {(it["contestant"], it["case"]): extent(it) for it in chosen}
        series = {
            contestant: [found.get((contestant, case)) for case in cases]
            for contestant in dict.fromkeys(it["contestant"] for it in chosen)
        }
        yield (
            f"{name}-{_plain(f'{metric} {unit}')}.svg",
            bars(metric[:1].upper() + metric[1:], cases, Axis(unit), series),
        )


def _plain(words: str) -> str:
    """As a file may be called anywhere."""
    return re.sub("[^a-z0-9]+", "-", words.lower()).strip("-")


def extent(it: Figure) -> Extent:
    return it["median"], it["low"], it["high"]
