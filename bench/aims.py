"""What gale aims at beside the others, and the few figures that README.md quotes, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.packet import MODES
from bench.tables import Figure, extent, grid, short

QUOTED = "requests, as many as the forwarder can"
"""The case in which the forwarder is the limit, and neither clients nor nodes are."""


def aims(judged: Sequence[Figure]) -> str:
    """What a file of results says of its aims; of ratios, the medians of the rounds' own."""
    return grid(
        ["aim", "case", "bound", "measured", ""],
        ([it["aim"], it["case"], _bound(it), extent(it), "held" if it["held"] else "**missed**"] for it in judged),
    )


def _bound(it: Figure) -> str:
    return next(f"{side} {short(it[side])}" for side in ("at least", "at most") if side in it)


def headline(results: Mapping[str, Any]) -> str:
    control = results["control"]["figures"]
    found = {
        (it["mode"], it["case"], it["flows"]): it
        for it in results["packet"]
        if (it["ip"], it["protocol"]) == (4, "tcp")
    }
    packets = ", ".join(f"{mode} {found[mode, 'established', 1]['ns']:g} ns" for mode in MODES)
    wires = next(it for it in results["packet"] if (it["mode"], it["case"]) == ("l4", "through veth"))
    rows = [
        ["a packet of an open connection, beyond an empty program", packets],
        [
            "l4 on one core, of what a bare redirect does",
            f"{wires['floor_ns'] / (wires['ns'] + wires['floor_ns']):.0%}",
        ],
        ["a commit, p50", f"{short(control['commit on the leader']['p50_ms'])} ms"],
        ["the leader's kill -9 to the next commit, median", f"{short(control['next commit']['median_ms'])} ms"],
    ]
    rows += [
        [
            f"{it['case']}: {it['aim'].partition(': ')[2]}, {it['aim'].partition(': ')[0]}",
            f"{short(it['median'])} times",
        ]
        for it in results.get("traffic", {}).get("aims", ())
        if it["case"] == QUOTED
    ]
    return grid(["measured", ""], rows)
