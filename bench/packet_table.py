"""Writes the figures of bench/results/packet.json into docs/PERFORMANCE.md: `python -m bench.packet_table`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.__main__ import RESULTS

DOCUMENT = Path(__file__).parent.parent / "docs/PERFORMANCE.md"
BEGIN, END = "<!-- begin: python -m bench.packet_table -->\n", "<!-- end -->\n"
COLUMNS = ((4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp"))
THROUGH_WIRES, SLOT_TABLE = "through veth", "slot table change"

Figure = Mapping[str, Any]


def table(figures: list[Figure]) -> str:
    return "\n".join([*_packets(figures), "", *_wires(figures), "", *_slots(figures)]) + "\n"


def _packets(figures: list[Figure]) -> Iterator[str]:
    yield "| mode, case | flows | IPv4 TCP | IPv4 UDP | IPv6 TCP | IPv6 UDP |"
    yield "|---|---|---|---|---|---|"
    rows: dict[tuple[str, str, int], dict[tuple[int, str], Figure]] = {}
    for it in figures:
        if it["case"] not in (THROUGH_WIRES, SLOT_TABLE):
            rows.setdefault((it["mode"], it["case"], it["flows"]), {})[it["ip"], it["protocol"]] = it
    for (mode, case, flows), cells in rows.items():
        columns = " | ".join(f"{cells[column]['ns']:g}" if column in cells else "" for column in COLUMNS)
        yield f"| {mode}: {case} | {f'{flows:,}' if flows else 'each its own'} | {columns} |"


def _wires(figures: list[Figure]) -> Iterator[str]:
    yield "| through veth, all on one core | million packets a second | of a bare redirect |"
    yield "|---|---|---|"
    for it in figures:
        if it["case"] == THROUGH_WIRES:
            whole = it["ns"] + it["floor_ns"]
            yield f"| {it['mode']} | {1000 / whole:.2f} | {it['floor_ns'] / whole:.0%} |"


def _slots(figures: list[Figure]) -> Iterator[str]:
    for it in figures:
        if it["case"] == SLOT_TABLE:
            yield f"A slot table of 1,000 nodes is changed in {it['ns'] / 1e6:.1f} ms, worked out and written."


def main() -> None:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    made = table(json.loads((RESULTS / "packet.json").read_text()))
    DOCUMENT.write_text(before + BEGIN + made + END + after)


if __name__ == "__main__":
    main()
