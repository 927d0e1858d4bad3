"""What a machine must have, by what it shall do: the tables of docs/SIZING.md, from what bench/ has measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.model import CLUSTER, TIMEOUT_S, measured, model, needs
from bench.packet import MODES
from bench.tables import Figure, grid, short

NODES = 10, 100, 1_000, 10_000
FLOWS = 1, 10_000, 131_072, 1_048_576


def sizing(results: Mapping[str, Any]) -> str:
    of = model(measured(results["control"], results["scale"]))
    wanted = [needs(of, CLUSTER, nodes) for nodes in NODES]
    rows = ([f"{it.nodes:,}", short(it.checks_per_s), short(it.cores), short(it.resident_mb)] for it in wanted)
    each = f"of each load balancer, with checks_timeout at {TIMEOUT_S:.0f} s"
    nodes = grid([f"nodes, {each}", "checks a second", "cores", "resident, MB"], rows)
    return f"{nodes}\n{_packets(results['packet'])}\n"


def _packets(figures: Sequence[Figure]) -> str:
    known = {
        (it["mode"], it["case"], it["flows"]): it["ns"] for it in figures if (it["ip"], it["protocol"]) == (4, "tcp")
    }
    ways = [(mode, "established", "to the node") for mode in MODES] + [
        ("l4", "back to the client", "back to the client")
    ]
    return grid(
        [
            "nanoseconds a packet, beyond an empty program",
            *(f"{flows:,} flows" if flows > 1 else "one flow" for flows in FLOWS),
        ],
        (
            [
                f"{mode}, {way}",
                *(short(known[mode, case, flows]) if (mode, case, flows) in known else "" for flows in FLOWS),
            ]
            for mode, case, way in ways
        ),
    )
