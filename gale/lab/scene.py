"""One moment of a lab as a newcomer wants to see it: who leads, who routes, what is answered by whom, what fails.

`observe` makes it from what the traffic generator counted and what the load balancers said; it is a pure function, so
the live view and the plain lines show the same figures.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gale.lab import view
from gale.lab.tally import Sample, Tally, sum_of
from gale.lab.topology import Topology, api_server, endpoint
from gale.lab.view import Report

RATE_OVER_S = 1.0


@dataclass(frozen=True, slots=True)
class LbRow:
    """`role` and `generation` in its own words, None when it does not answer: its kernel may forward all the same."""

    name: str
    endpoint: str
    role: str | None
    generation: int | None
    rate: float
    failed: int


@dataclass(frozen=True, slots=True)
class NodeRow:
    """`phases`: what the load balancers that see a quorum say, or all if none does; one word when they agree."""

    name: str
    phases: tuple[str, ...]
    rate: float


@dataclass(frozen=True, slots=True)
class Scene:
    at_s: float
    leader: str | None
    lbs: tuple[LbRow, ...]
    nodes: tuple[NodeRow, ...]
    rate: float
    answered: int
    failed: int


def observe(
    at_s: float,
    topology: Topology,
    samples: Iterable[Sample],
    totals: Mapping[str, Tally],
    reports: Mapping[str, Report],
) -> Scene:
    """The scene at a monotonic time. Rates are over the last second of samples, totals over the whole run."""
    recent = [sample for sample in samples if sample.at_s > at_s - RATE_OVER_S]
    span = sum(sample.interval_s for sample in recent) or 1.0
    answering = {server: report for server, report in reports.items() if report.status}
    leading = view.leader(answering.values())
    informed = [r for r in answering.values() if r.status and r.status["quorum"]] or list(answering.values())
    lbs = []
    for lb in topology.lbs:
        at = endpoint(lb)
        report = answering.get(api_server(lb))
        entry = view.own_entry(report) if report else None
        lbs.append(
            LbRow(
                lb.name,
                at,
                entry["role"] if entry else None,
                entry["generation"] if entry else None,
                sum(sample.endpoints[at].ok for sample in recent) / span,
                totals[at].failed if at in totals else 0,
            )
        )
    lately = sum_of(sample.total for sample in recent)
    whole = sum_of(totals.values())
    nodes = tuple(
        NodeRow(
            node.name,
            tuple(sorted({view.phases(report).get(node.name, "unknown") for report in informed})),
            lately.nodes[node.name] / span,
        )
        for node in topology.node_instances
    )
    names = {lb.private: lb.name for lb in topology.lbs}
    return Scene(at_s, names.get(leading), tuple(lbs), nodes, sum(row.rate for row in lbs), whole.ok, whole.failed)
