"""The metrics of a node, as its gale-node knows it: its checks, its service, and what was prepared on its machine.

What the cluster makes of the node is told by the load balancers too, for all nodes (families.py). This is the other
end of each check: which load balancer does not answer, and why this node does not serve. There are eight series for
each load balancer, and two dozen more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gale.core.state import Phase
from gale.core.tally import Checks, Spent
from gale.web.exposition import Family, Measured, one
from gale.web.families import BUILD, CERTIFICATE, REFUSED

OTHER_END = ("load_balancer",)
SENT = Family("gale_checks_sent_total", "Checks that were sent.", OTHER_END)
ANSWERS = Family("gale_check_answers_total", "Answers to checks, of which only some ask for one.", OTHER_END)
REFUSALS = Family("gale_check_refusals_total", "Answers that are refusals.", OTHER_END)
FAILED = Family(
    "gale_checks_failed_total",
    "Times that the load balancer could not be reached, closed the connection, or did not answer in time.",
    OTHER_END,
)
HEARD = Family("gale_load_balancer_answers", "1 while the load balancer answers.", OTHER_END)
PHASE = Family("gale_told_phase", "Always 1: the phase that this node is in, as it says.", (*OTHER_END, "phase"))
SERVING = Family("gale_serving", "1 while this node says there that it serves.", OTHER_END)
PREPARED = Family("gale_prepared", "1 while this machine is fit for what it listens for.", OTHER_END)
CHANGES = Family("gale_prepared_changes", "What gale-node has changed on this machine, and will put back.", ("kind",))
TUNNEL = Family(
    "gale_tunnel_packets_total",
    "Packets of mode l3 at this node by verdict, and what became of them.",
    ("verdict", "action"),
)
WELL = Family("gale_service_well", "1 while the service is well by its probe, or has none.")
PROBES = Family("gale_probes_total", "Probes of the service.", ("result",))
PROBE_SECONDS = Family("gale_probe_seconds_total", "How long they took, in all.", ("result",))

KINDS = ("address", "program", "setting")


@dataclass(frozen=True, slots=True)
class OtherEnd:
    """A load balancer. `phase`: of this node, as it says; empty while it does not answer. `reason`: why this node does
    not serve, `hindrance`: what of it is for want of preparation; each empty if there is nothing."""

    address: str
    checks: Checks
    phase: str = ""
    reason: str = ""
    hindrance: str = ""


@dataclass(frozen=True, slots=True)
class SeenNode:
    """What a node knows of itself at one moment. `probes`: by result; `changes`: on its machine, by kind; `tunnel`:
    packets by verdict and what becomes of such a packet."""

    version: str
    load_balancers: Sequence[OtherEnd]
    well: bool
    probes: Mapping[str, Spent]
    changes: Mapping[str, int] = field(default_factory=dict)
    tunnel: Mapping[tuple[str, str], int] = field(default_factory=dict)
    refused: int = 0
    certificate_ends_s: float | None = None


def measured_node(seen: SeenNode) -> Iterator[Measured]:
    """Every metric with its values."""
    ends = seen.load_balancers
    yield BUILD, one(1, seen.version)
    yield SENT, [((end.address,), end.checks.sent) for end in ends]
    yield ANSWERS, [((end.address,), end.checks.answers) for end in ends]
    yield REFUSALS, [((end.address,), end.checks.refusals) for end in ends]
    yield FAILED, [((end.address,), end.checks.failed) for end in ends]
    yield HEARD, [((end.address,), bool(end.phase)) for end in ends]
    yield PHASE, [((end.address, end.phase), 1) for end in ends if end.phase]
    yield SERVING, [((end.address,), not end.reason) for end in ends]
    yield PREPARED, [((end.address,), not end.hindrance) for end in ends]
    yield CHANGES, [((kind,), seen.changes.get(kind, 0)) for kind in KINDS]
    yield TUNNEL, list(seen.tunnel.items())
    yield WELL, one(seen.well)
    yield PROBES, [((result,), spent.times) for result, spent in seen.probes.items()]
    yield PROBE_SECONDS, [((result,), spent.seconds) for result, spent in seen.probes.items()]
    yield REFUSED, one(seen.refused, "web")
    if seen.certificate_ends_s is not None:
        yield CERTIFICATE, one(seen.certificate_ends_s)


def out_of_service(seen: SeenNode) -> tuple[str, ...]:
    """Why this node is sent no new flows by some load balancer, a line each; empty when all that answer route to it."""
    if not any(end.phase for end in seen.load_balancers):
        return ("no load balancer answers",)
    return tuple(
        f"{end.address}: this node is {end.phase}{end.reason and ': '}{end.reason}"
        for end in seen.load_balancers
        if end.phase not in ("", Phase.ROUTING)
    )
