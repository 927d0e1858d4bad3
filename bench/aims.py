"""How gale stands beside the others, as ratios with their aims, and the few figures that README.md quotes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.tables import Figure, grid, short

GALE, KERNEL, HAPROXY, NFTABLES = "gale l4", "none", "HAProxy", "nftables"
AIMS = (
    ("requests", "/s", KERNEL, 0.9, True),
    ("requests", "/s", HAPROXY, 2.0, True),
    ("forwarder's CPU", "µs per request", HAPROXY, 0.25, False),
    ("throughput", "Gbit/s", KERNEL, 0.9, True),
    ("packets", "Mpps", NFTABLES, 3.0, True),
)
"""Metric, unit, beside whom, the aim, and whether it is the least or the most."""


def aims(results: Sequence[Figure]) -> Iterator[str]:
    rows = list(_rows(results))
    if rows:
        yield grid([f"{GALE} beside", "case", "metric", "ratio", "aim", ""], rows)


def _rows(results: Sequence[Figure]) -> Iterator[list[str]]:
    found = {(it["case"], it["contestant"], it["metric"], it["unit"]): it["median"] for it in results}
    for metric, unit, other, aim, least in AIMS:
        for (case, contestant, its_metric, its_unit), value in found.items():
            beside = found.get((case, other, metric, unit))
            if (contestant, its_metric, its_unit) == (GALE, metric, unit) and beside:
                ratio = value / beside
                reached = ratio >= aim if least else ratio <= aim
                called = "kernel routing" if other == KERNEL else other
                most = "at least" if least else "at most"
                yield [
                    called,
                    case,
                    metric,
                    short(ratio),
                    f"{most} {short(aim)}",
                    "reached" if reached else "**missed**",
                ]


def headline(results: Mapping[str, Any]) -> str:
    control = results["control"]["figures"]
    packet = {(it["mode"], it["case"]): it for it in results["packet"] if (it["ip"], it["protocol"]) == (4, "tcp")}
    first = {it["mode"]: it["ns"] for it in reversed(results["packet"]) if it["case"] == "established"}
    wires = packet["l4", "through veth"]
    rows = [
        [
            "a packet of an open connection, beyond an empty program",
            ", ".join(f"{m} {first[m]:g} ns" for m in sorted(first)),
        ],
        [
            "l4 on one core, of what a bare redirect does",
            f"{wires['floor_ns'] / (wires['ns'] + wires['floor_ns']):.0%}",
        ],
        ["a commit, p50", f"{short(control['commit on the leader']['p50_ms'])} ms"],
        ["the leader's kill -9 to the next commit, median", f"{short(control['next commit']['median_ms'])} ms"],
    ]
    contest = results.get("traffic", {"results": []})["results"]
    rows += [
        [f"l4: {metric}, {case}, of {other}'s", ratio]
        for other, case, metric, ratio, *_ in _rows(contest)
        if metric in ("requests", "forwarder's CPU")
    ]
    return grid(["measured", ""], rows)
