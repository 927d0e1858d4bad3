"""Scale on paper, as tables: what bench/model.py says."""

from collections.abc import Mapping
from typing import Any

from bench.model import (
    CLUSTER,
    LOST_AT_ONCE,
    TIMEOUT_S,
    Model,
    limits,
    measured,
    model,
    needs,
    predictions,
    slowest_beat,
)
from bench.tables import grid, short
from gale.core.state import MAX_NODES

LOAD_BALANCERS = 3, 10, 100
NODES = 10_000, 100_000, 1_000_000


def paper(control: Mapping[str, Any], scale: Mapping[str, Any]) -> str:
    known = measured(control, scale)
    of = model(known)
    checked = grid(
        ["checked", "at", "predicted", "measured", "error"],
        (
            [
                f"{it.what}, {it.unit}",
                f"{short(it.at)} {it.of}",
                short(it.predicted),
                short(it.measured),
                f"{it.error:+.0%}",
            ]
            for it in predictions(known)
        ),
    )
    return f"{_lines(of)}\n{checked}\n{_limits(of)}\n{_needs(of)}\n{_beat(of)}"


def _lines(of: Model) -> str:
    return (
        f"A load balancer is resident with {short(of.resident_mb.begin)} MB, and {short(1000 * of.resident_mb.each)} "
        f"KB for each node. It takes {short(of.cores.begin)} of a core, and {short(1e6 * of.cores.each)} µs for each "
        f"check. A snapshot is {short(1e6 * of.snapshot_mb.each)} bytes for each node. The log takes "
        f"{short(of.observations_per_s)} observations a second.\n"
    )


def _limits(of: Model) -> str:
    return grid(
        ["limit of one cluster", "nodes", "what to do about it"],
        ([limit.name, f"{limit.nodes:,}", limit.remedy] for limit in limits(of)),
    )


def _needs(of: Model) -> str:
    rows = [needs(of, load_balancers, nodes) for nodes in NODES for load_balancers in LOAD_BALANCERS]
    return grid(
        [
            "load balancers",
            "nodes",
            "clusters, nodes each",
            "checks/s",
            "cores",
            "resident, MB",
            "log, observations/s",
            f"{LOST_AT_ONCE:.0%} lost at once, s in the log",
            "snapshot, MB",
            "failover, ms",
            "first limit passed",
            "enough",
        ],
        (
            [
                f"{it.load_balancers}",
                f"{it.nodes:,}",
                f"{it.clusters}, {it.nodes_each:,}",
                short(it.checks_per_s),
                short(it.cores),
                short(it.resident_mb),
                short(it.log_per_s),
                short(it.lost_s),
                short(it.snapshot_mb),
                short(it.failover_ms),
                it.beyond[0] if it.beyond else "none",
                f"{it.enough:,}",
            ]
            for it in rows
        ),
    )


def _beat(of: Model) -> str:
    hard = next(limit for limit in limits(of) if limit.hard)
    return (
        f'So with checks_timeout at {TIMEOUT_S:.0f} s the first limit is "{hard.name}", at {hard.nodes:,} nodes of a '
        f"cluster. A cluster of {MAX_NODES:,} nodes, as many as have numbers, wants a checks_timeout of "
        f"{short(slowest_beat(of, MAX_NODES))} s; a million nodes are then "
        f"{CLUSTER * -(-NODES[-1] // MAX_NODES)} load balancers in clusters of {CLUSTER}.\n"
    )
