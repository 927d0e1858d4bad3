"""The tables of docs/PERFORMANCE.md and README.md, from what stands in bench/results/: pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.control import target

Figure = Mapping[str, Any]

COLUMNS = ((4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp"))
THROUGH_WIRES, SLOT_TABLE = "through veth", "slot table change"
CONTROL_NAMES = {
    "p50_ms": ("p50", "ms"),
    "p99_ms": ("p99", "ms"),
    "median_ms": ("median", "ms"),
    "least_ms": ("least", "ms"),
    "most_ms": ("worst", "ms"),
    "worst_turn_ms": ("longest hold of the loop", "ms"),
    "per_s": ("all together", "/s"),
    "leader_alone_per_s": ("the leader alone", "/s"),
    "observations_per_s": ("observations in them", "/s"),
    "seconds": ("time", "s"),
    "megabytes": ("size", "MB"),
    "commands_per_minute": ("commands a minute", ""),
    "checks_per_s": ("checks", "/s"),
    "cores": ("CPU", "cores"),
    "resident_mb": ("resident", "MB"),
    "reply_p99_ms": ("reply p99", "ms"),
    "cpu_us_per_check": ("CPU per check", "µs"),
}
"""What of control.json is shown, and how it is called."""


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def short(value: float) -> str:
    """Three digits that count; more of a large number, whose parts stand in groups."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:.1f}".removesuffix(".0")


def extent(figure: Figure) -> str:
    """The median, with the least and most where they differ."""
    median, low, high = (short(figure[name]) for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def machine(about: Figure) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    place = [about["machine"], f"kernel {about['kernel']}", about["system"]]
    return f"`{about['command']}` on {', '.join(place)}; {versions}.\n"


NOTABLE = 0.05
BY_CHANCE_NS = 2


def against(figures: Sequence[Figure]) -> str:
    """What differs by more than a twentieth, and by more than the kernel's whole nanoseconds do by themselves."""
    differ = [it for it in figures if abs(it["after"] / it["before"] - 1) >= NOTABLE]
    notable = [it for it in differ if it["unit"] != "ns" or abs(it["after"] - it["before"]) > BY_CHANCE_NS]
    rows = []
    for it in notable:
        costs = [f"{short(it[when])} {it['unit']}" for when in ("before", "after")]
        rows.append([it["what"], it["case"], *costs, short(it["after"] / it["before"])])
    return grid(["of a", "case", "before", "after", "after / before"], rows)


def packets(figures: Sequence[Figure]) -> str:
    rows: dict[tuple[str, str, int], dict[tuple[int, str], Figure]] = {}
    for it in figures:
        if it["case"] not in (THROUGH_WIRES, SLOT_TABLE):
            rows.setdefault((it["mode"], it["case"], it["flows"]), {})[it["ip"], it["protocol"]] = it
    return grid(
        ["mode, case", "flows", "IPv4 TCP", "IPv4 UDP", "IPv6 TCP", "IPv6 UDP", "most spread", "empty program"],
        (
            [
                f"{mode}: {case}",
                f"{flows:,}" if flows else "each its own",
                *(f"{cells[column]['ns']:g}" if column in cells else "" for column in COLUMNS),
                f"{max(cell['spread'] for cell in cells.values()):g}",
                f"{max(cell['floor_ns'] for cell in cells.values()):g}",
            ]
            for (mode, case, flows), cells in rows.items()
        ),
    )


def wires(figures: Sequence[Figure]) -> str:
    return grid(
        ["through veth, all on one core", "million packets a second", "of a bare redirect"],
        (
            [
                it["mode"],
                f"{1000 / (it['ns'] + it['floor_ns']):.2f}",
                f"{it['floor_ns'] / (it['ns'] + it['floor_ns']):.0%}",
            ]
            for it in figures
            if it["case"] == THROUGH_WIRES
        ),
    )


def slots(figures: Sequence[Figure]) -> str:
    took = next(it["ns"] for it in figures if it["case"] == SLOT_TABLE)
    return f"A slot table of 1,000 nodes is changed in {took / 1e6:.1f} ms, worked out and written.\n"


def contest(results: Sequence[Figure], cases: Sequence[str]) -> str:
    """A row for each contestant of a case, a column for each metric."""
    chosen = [it for it in results if it["case"] in cases]
    metrics = list(dict.fromkeys((it["metric"], it["unit"]) for it in chosen))
    rows: dict[tuple[str, str], dict[str, Figure]] = {}
    for it in chosen:
        rows.setdefault((it["case"], it["contestant"]), {})[it["metric"]] = it
    return grid(
        ["case", "", *(f"{metric}, {unit}" if unit else metric for metric, unit in metrics)],
        (
            [*row, *(extent(cells[metric]) if metric in cells else "" for metric, _ in metrics)]
            for row, cells in sorted(rows.items(), key=lambda row: cases.index(row[0][0]))
        ),
    )


def spread(results: Sequence[Figure], figures: Sequence[str], many: bool = False) -> str:
    """`many`: small shares, in parts of ten thousand."""
    found = {(it["weights"], it["nodes"], it["contestant"], it["figure"]): it for it in results}
    contestants = list(dict.fromkeys(it["contestant"] for it in results))
    rows = dict.fromkeys((it["weights"], it["nodes"]) for it in results)

    def cell(it: Figure) -> str:
        return f"{1e4 * it['median']:.1f}" if many else f"{it['median']:.3f}"

    return grid(
        ["weights", "nodes", *(f"{figure}, {contestant}" for figure in figures for contestant in contestants)],
        (
            [
                weights,
                f"{nodes:,}",
                *(cell(found[weights, nodes, contestant, figure]) for figure in figures for contestant in contestants),
            ]
            for weights, nodes in rows
        ),
    )


def control(figures: Mapping[str, Mapping[str, float]]) -> str:
    def rows() -> Iterator[list[str]]:
        for case, values in figures.items():
            for name, value in values.items():
                if name in CONTROL_NAMES:
                    called, unit = CONTROL_NAMES[name]
                    bound = target(case, name)
                    said = short(value) if bound is None or value <= bound else f"**{short(value)}**"
                    yield [
                        case,
                        called,
                        f"{said} {unit}".strip(),
                        "" if bound is None else f"{short(bound)} {unit}".strip(),
                    ]

    return grid(["case", "figure", "value", "at most"], rows())


def scale(results: Sequence[Figure], over: str) -> str:
    """`over`: "load_balancers" or "nodes"; a column for each size."""
    chosen = grown(results, over)
    sizes = sorted({it[over] for it in chosen})
    rows: dict[tuple[str, str], dict[int, Figure]] = {}
    for it in chosen:
        rows.setdefault((it["figure"], it["unit"]), {})[it[over]] = it
    what = over.replace("_", " ")
    return grid(
        ["figure", *(f"{size:,} {what}" if size != 1 else f"1 {what[:-1]}" for size in sizes)],
        (
            [f"{figure}, {unit}", *(extent(cells[size]) if size in cells else "" for size in sizes)]
            for (figure, unit), cells in rows.items()
        ),
    )


def grown(results: Sequence[Figure], over: str) -> list[Figure]:
    """Over nodes, with three load balancers; over load balancers, with as many nodes as the most of them have."""
    if over == "nodes":
        return [it for it in results if it["load_balancers"] == 3 and it["nodes"]]
    most = max(it["load_balancers"] for it in results)
    usual = {it["figure"]: it["nodes"] for it in results if it["load_balancers"] == most}
    return [it for it in results if it["nodes"] == usual.get(it["figure"])]
