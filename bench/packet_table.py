"""The figures of bench/results/packet.json as the table of docs/PERFORMANCE.md: `python -m bench.packet_table`."""

import json

from bench.__main__ import RESULTS

COLUMNS = ((4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp"))
THROUGH_WIRES, SLOT_TABLE = "through veth", "slot table change"


def main() -> None:
    figures = json.loads((RESULTS / "packet.json").read_text())
    print("| mode, case | flows | IPv4 TCP | IPv4 UDP | IPv6 TCP | IPv6 UDP |\n|---|---|---|---|---|---|")
    rows = dict.fromkeys((it["mode"], it["case"], it["flows"]) for it in figures)
    for mode, case, flows in rows:
        cells = {
            (it["ip"], it["protocol"]): it
            for it in figures
            if (it["mode"], it["case"], it["flows"]) == (mode, case, flows)
        }
        if case not in (THROUGH_WIRES, SLOT_TABLE):
            columns = " | ".join(f"{cells[column]['ns']:g}" if column in cells else "" for column in COLUMNS)
            print(f"| {mode}: {case} | {f'{flows:,}' if flows else 'each its own'} | {columns} |")
    print("\n| through veth, on one core | million packets a second | of a bare redirect |\n|---|---|---|")
    for it in figures:
        if it["case"] == THROUGH_WIRES:
            whole = it["ns"] + it["floor_ns"]
            print(f"| {it['mode']} | {1000 / whole:.2f} | {it['floor_ns'] / whole:.0%} |")
    for it in figures:
        if it["case"] == SLOT_TABLE:
            print(f"\nA slot table of 1,000 nodes, changed: {it['ns'] / 1e6:.1f} ms, worked out and written.")


if __name__ == "__main__":
    main()
