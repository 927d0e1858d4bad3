"""Scale on paper: what so many load balancers with so many nodes need, from what was measured on a few.

What is measured grows in straight lines over the sizes that fit into one machine, so the model is straight lines:

    resident memory   over the nodes that check in         cores      over the checks a second
    a snapshot        over the nodes that are known        failover   over the load balancers of a cluster

Each line is drawn through the measured points without the largest, and asked for the largest; beside it stands what was
measured there (`predictions`). Only then is it drawn through all of them. What is no measurement is a rule of gale's: a
node sends three checks in checks_timeout to each load balancer of its cluster; nothing is logged while nothing changes,
and one observation by each load balancer when a node goes, and one when it comes.

Limits are of one cluster. More nodes than the first limit allows are more clusters, each with nodes, an address and a
log of its own; the router before them spreads clients over addresses as it does over the load balancers of one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.deciding import NODES
from gale.core.shared import SLOTS
from gale.core.state import MAX_NODES, MAX_TRANSITIONS
from gale.raft.replica import ELECTION_MIN_S
from gale.rpc.limits import NODE_LIMITS

CHECKS_EACH_TIMEOUT = 3
TIMEOUT_S = 5.0
"""The default of checks_timeout."""
CLUSTER = 3
"""Load balancers of a cluster: with more of them each node sends more checks, and no load balancer gets fewer."""
UNEVEN = 0.1
RESTARTS_A_DAY = 1
DAY_S = 86_400
LOST_AT_ONCE = 0.1

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Straight:
    """A line: what there is of nothing, and what each adds."""

    begin: float
    each: float

    def __call__(self, count: float) -> float:
        return self.begin + self.each * count

    def where(self, value: float) -> float:
        """How many there are of it when it has this value."""
        return (value - self.begin) / self.each if self.each > 0 else math.inf


def straight(points: Points) -> Straight:
    """The line with the least squares of relative errors, so that small sizes count as large ones do. Two points or
    more, of different places."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    x = sum(weight * point[0] for weight, point in zip(weights, points, strict=True)) / total
    y = sum(weight * point[1] for weight, point in zip(weights, points, strict=True)) / total
    wide = sum(weight * (point[0] - x) ** 2 for weight, point in zip(weights, points, strict=True))
    both = sum(weight * (point[0] - x) * (point[1] - y) for weight, point in zip(weights, points, strict=True))
    each = both / wide
    return Straight(y - each * x, each)


@dataclass(frozen=True)
class Measured:
    """What the model is made from, by what grows; the place of each point and its value."""

    resident_mb: Points
    cores: Points
    snapshot_mb: Points
    """From as many nodes on as have filled the list of the last changes, which does not grow any more then."""
    failover_ms: Points
    observations_per_s: float
    joining_ms_per_node: float
    """How long the loop is held, by each of the nodes that join at once."""
    elsewhere: Mapping[str, tuple[float, float]]
    """Points of another measurement, with one load balancer and more checks a second than any of these."""


def measured(control: Mapping[str, Any], scale: Mapping[str, Any]) -> Measured:
    """From bench/results/control.json and scale.json."""
    figures: dict[str, dict[str, float]] = control["figures"]
    held = {(it["figure"], it["load_balancers"], it["nodes"]): float(it["median"]) for it in scale["results"]}

    def over_nodes(figure: str) -> list[tuple[float, float]]:
        return sorted((nodes, value) for (name, count, nodes), value in held.items() if (name, count) == (figure, 3))

    pace = dict(over_nodes("checks each second"))
    failover = [(n, v) for (name, n, nodes), v in held.items() if (name, nodes) == ("next commit after a kill", 0)]
    pressed = next(value for name, value in figures.items() if "into one" in name)
    nodes = int(next(name for name in figures if "into one" in name).split()[0].replace(",", ""))
    return Measured(
        over_nodes("resident"),
        sorted((pace[nodes], cores) for nodes, cores in over_nodes("CPU")),
        [point for point in over_nodes("snapshot") if point[0] >= MAX_TRANSITIONS],
        sorted(failover),
        figures["commands"]["observations_per_s"],
        figures["joining"]["worst_turn_ms"] / NODES,
        {"cores": (pressed["checks_per_s"], pressed["cores"]), "resident_mb": (nodes, pressed["resident_mb"])},
    )


@dataclass(frozen=True)
class Prediction:
    """`at`: the place that the line was not drawn through."""

    what: str
    unit: str
    at: float
    of: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def predictions(known: Measured) -> list[Prediction]:
    made = []
    for what, unit, of, points in (
        ("resident memory", "MB", "nodes", known.resident_mb),
        ("CPU", "cores", "checks/s", known.cores),
        ("a snapshot", "MB", "nodes", known.snapshot_mb),
        ("the next commit", "ms", "load balancers", known.failover_ms),
    ):
        *rest, (at, value) = points
        if len(rest) > 1:
            made.append(Prediction(what, unit, at, of, straight(rest)(at), value))
    for name, unit, of, points in (
        ("cores", "cores", "checks/s into one", known.cores),
        ("resident_mb", "MB", "nodes into one", known.resident_mb),
    ):
        at, value = known.elsewhere[name]
        what = {"cores": "CPU", "resident_mb": "resident memory"}[name]
        made.append(Prediction(what, unit, at, of, straight(points)(at), value))
    return made


@dataclass(frozen=True)
class Model:
    resident_mb: Straight
    cores: Straight
    snapshot_mb: Straight
    failover_ms: Straight
    observations_per_s: float
    joining_ms_per_node: float


def model(known: Measured) -> Model:
    return Model(
        straight(known.resident_mb),
        straight(known.cores),
        straight(known.snapshot_mb),
        straight(known.failover_ms),
        known.observations_per_s,
        known.joining_ms_per_node,
    )


@dataclass(frozen=True)
class Limit:
    """`nodes`: so many at most, in one cluster. `hard`: more do not fit; otherwise they fit worse."""

    name: str
    nodes: int
    hard: bool
    remedy: str


def limits(of: Model, timeout_s: float = TIMEOUT_S) -> list[Limit]:
    """The nearest first."""
    each_s = CHECKS_EACH_TIMEOUT / timeout_s
    found = [
        Limit(
            f"shares are even to {UNEVEN:.0%}",
            int(UNEVEN * SLOTS),
            False,
            "more slots, at 14 bytes each; or several services with nodes of their own",
        ),
        Limit(
            "one core takes all checks",
            int(of.cores.where(1) / each_s),
            True,
            "a longer checks_timeout, in proportion; then a process for each core, which passes on what changes",
        ),
        Limit(
            "numbers of nodes",
            MAX_NODES,
            True,
            "wider node numbers and slots in bpf/abi.h, since a number also names a slot's owner in 16 bits",
        ),
        Limit(
            "connections to a load balancer",
            NODE_LIMITS.connections,
            True,
            "a higher bound, and open files to match; checks as datagrams need neither",
        ),
        Limit(
            "all join at once within an election timeout",
            int(1000 * ELECTION_MIN_S / of.joining_ms_per_node),
            True,
            "reports in smaller parts, with turns of the loop between them",
        ),
    ]
    return sorted(found, key=lambda limit: limit.nodes)


@dataclass(frozen=True)
class Needs:
    """Of load balancers that are clusters of three, each with its part of the nodes. Figures are of one load balancer,
    the log's of one cluster."""

    load_balancers: int
    nodes: int
    clusters: int
    nodes_each: int
    checks_per_s: float
    cores: float
    resident_mb: float
    snapshot_mb: float
    log_per_s: float
    lost_s: float
    failover_ms: float
    beyond: tuple[str, ...]
    """Names of the limits that are passed, the nearest first."""
    enough: int
    """How many load balancers would keep within them."""


def needs(of: Model, load_balancers: int, nodes: int, timeout_s: float = TIMEOUT_S) -> Needs:
    clusters = max(1, load_balancers // CLUSTER)
    size = math.ceil(load_balancers / clusters)
    each = math.ceil(nodes / clusters)
    checks = each * CHECKS_EACH_TIMEOUT / timeout_s
    hard = [limit for limit in limits(of, timeout_s) if limit.hard]
    return Needs(
        load_balancers,
        nodes,
        clusters,
        each,
        checks,
        of.cores(checks),
        of.resident_mb(each),
        of.snapshot_mb(each),
        2 * size * each * RESTARTS_A_DAY / DAY_S,
        LOST_AT_ONCE * each * size / of.observations_per_s,
        of.failover_ms(size),
        tuple(limit.name for limit in hard if limit.nodes < each),
        CLUSTER * math.ceil(nodes / hard[0].nodes),
    )


def slowest_beat(of: Model, nodes: int) -> float:
    """The least checks_timeout at which so many nodes of a cluster fit into one core."""
    return CHECKS_EACH_TIMEOUT * nodes / of.cores.where(1)
