"""The metrics of a load balancer, each with its name, its labels and what it means; and their values at one moment.

Nothing is counted here: everything follows from the replicated state, from what the load balancer says of itself, and
from what the kernel has counted, as the management API shows it too. Names are Prometheus': units last, in base units,
`_total` for what only grows. The kernel's counts begin anew when gale-lb makes its maps, which `rate` is ready for.

How many series there are is bounded: the verdicts, seven for each service, a few for each load balancer; and seven for
each node at most, which are left out where that is asked for. Names of nodes come from nodes, of which the state knows
no more than it has room for.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gale.core.slots import SlotTable
from gale.core.state import ClusterState, Phase
from gale.core.view import NO_NODE
from gale.ports import Counters, LocalStatus, Traffic
from gale.web.exposition import Family, Measured, Row, one

BUILD = Family("gale_build_info", "Always 1: the version of gale.", ("version",))
READY = Family("gale_ready", "1 while this load balancer is fit to be sent traffic, as /readyz says.")
TROUBLE = Family(
    "gale_trouble",
    "1 while a part of gale-lb cannot do its work: consensus (no quorum), dataplane, verification.",
    ("part",),
)
LEADER = Family("gale_raft_leader", "1 while this load balancer leads.")
QUORUM = Family("gale_raft_quorum", "1 while this load balancer is in contact with a majority.")
LEARNER = Family("gale_raft_learner", "1 while it takes the log and does not vote: it is being filled.")
TERM = Family("gale_raft_term", "The term of the leader that it follows.")
APPLIED = Family("gale_raft_applied_index", "The last entry of the log that its state holds.")
CONNECTED = Family("gale_raft_peer_connected", "1 while the other load balancer is heard.", ("load_balancer",))
DIFFERS = Family(
    "gale_configuration_differs",
    "1 while a load balancer's configuration differs from the reference, in what must agree.",
    ("load_balancer",),
)
IGNORED = Family(
    "gale_load_balancer_ignored",
    "1 while nothing is exchanged with it, or its reports do not count.",
    ("load_balancer",),
)
GENERATION = Family("gale_generation", "The generation of the forwarding view that the kernel's maps hold.")
COMMITTED = Family("gale_committed_generation", "The generation of the forwarding view that is committed.")
ATTACHED = Family(
    "gale_interface_attached",
    "Always 1: how the interface's program is attached: native, generic (slower) or tc.",
    ("interface", "how"),
)
MENDED = Family(
    "gale_dataplane_mended_total",
    "What the kernel held otherwise than it was written, and was mended: somebody was there.",
)
REFUSED = Family("gale_refused_total", "Connections and calls that were turned away.", ("port",))
KILLED = Family("gale_flows_killed_total", "Flows that operators have ended here, with gale-ctl flows kill.")
CERTIFICATE = Family("gale_certificate_expiry_timestamp_seconds", "When this program's certificate ends.")
NODES = Family("gale_nodes", "Nodes that the cluster knows, by phase.", ("phase",))
DRAINED = Family("gale_nodes_drained", "Nodes that an operator has ordered to drain.")
DEGRADED = Family("gale_nodes_degraded", "Nodes that are taken away here, by own eyes, while there is no quorum.")
SERVICE_NODES = Family("gale_service_nodes", "Nodes that get new flows of the service.", ("service",))
PACKETS = Family("gale_packets_total", "Packets by verdict, and what became of them.", ("verdict", "action"))
WAY = ("direction",)
SERVICE_PACKETS = Family("gale_service_packets_total", "in: from clients to nodes; out: back.", ("service", *WAY))
SERVICE_BYTES = Family("gale_service_bytes_total", "As the packets, in bytes of IP.", ("service", *WAY))
SERVICE_MOVED = Family(
    "gale_service_moved_slots",
    "l2, l3: slots that have moved lately, in which connections are looked for that stay with their node.",
    ("service",),
)
SERVICE_FLOWS = Family("gale_service_flows_total", "New flows; in l2 and l3, TCP's SYNs.", ("service",))
NODE_PHASE = Family("gale_node_phase", "Always 1: the phase that the node is in.", ("node", "phase"))
NODE_FAILS = Family("gale_node_fails", "Times it has fallen out of routing since its last ban.", ("node",))
NODE_PACKETS = Family("gale_node_packets_total", "in: from clients to the node; out: back.", ("node", *WAY))
NODE_BYTES = Family("gale_node_bytes_total", "As the packets, in bytes of IP.", ("node", *WAY))
NODE_FLOWS = Family("gale_node_flows_total", "New flows; in l2 and l3, TCP's SYNs.", ("node",))

TROUBLES = ("consensus", "dataplane", "verification")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known at one moment. `actions`: verdict -> what becomes of such a packet; `refused`: by port; `killed`:
    flows; `certificate_ends_s`: None without TLS."""

    state: ClusterState
    local: LocalStatus
    counters: Counters
    actions: Mapping[str, str]
    refused: Mapping[str, int]
    ready: bool
    killed: int = 0
    certificate_ends_s: float | None = None


def measured(seen: Seen, nodes: bool) -> Iterator[Measured]:
    """Every metric with its values; `nodes`: those of each node too."""
    yield from _of_itself(seen)
    yield from _of_raft(seen)
    yield from _of_traffic(seen)
    if nodes:
        yield from _of_nodes(seen)


def _of_itself(seen: Seen) -> Iterator[Measured]:
    state, local = seen.state, seen.local
    yield BUILD, one(1, local.version)
    yield READY, one(seen.ready)
    yield TROUBLE, [((part,), part in local.troubles) for part in TROUBLES]
    yield GENERATION, one(local.generation)
    yield COMMITTED, one(state.generation)
    yield ATTACHED, [((interface, how), 1) for interface, how in sorted(local.attachments.items())]
    yield MENDED, one(local.mended)
    yield REFUSED, [((port,), count) for port, count in seen.refused.items()]
    yield KILLED, one(seen.killed)
    if seen.certificate_ends_s is not None:
        yield CERTIFICATE, one(seen.certificate_ends_s)


def _of_raft(seen: Seen) -> Iterator[Measured]:
    state, me, raft = seen.state, seen.local.address, seen.local.consensus
    members = sorted({me, *state.load_balancers, *state.members})
    yield LEADER, one(raft.leader == me)
    yield QUORUM, one(raft.quorum)
    yield LEARNER, one(raft.learner)
    yield TERM, one(raft.term)
    yield APPLIED, one(raft.applied_index)
    yield CONNECTED, [((other,), other in raft.connected) for other in members if other != me]
    yield DIFFERS, [((lb,), bool(raft.differs.get(lb) or raft.ignored.get(lb) or state.differs(lb))) for lb in members]
    yield IGNORED, [((lb,), lb in raft.ignored or state.ignored(lb)) for lb in members]


def _of_traffic(seen: Seen) -> Iterator[Measured]:
    state, counters = seen.state, seen.counters
    phases = Counter(node.phase for node in state.nodes.values())
    services = {service.name: counters.services.get(service.name, Traffic()) for service in state.shared.services}
    yield NODES, [((phase.value,), phases[phase]) for phase in Phase]
    yield DRAINED, one(sum(node.drained for node in state.nodes.values()))
    yield DEGRADED, one(len(seen.local.degraded))
    yield SERVICE_NODES, (((name,), owners(state.tables.get(name))) for name in services)
    yield SERVICE_MOVED, [((name,), many) for name, many in counters.moved.items() if name in services]
    yield PACKETS, [((name, action), counters.verdicts.get(name, 0)) for name, action in seen.actions.items()]
    yield from _moved((SERVICE_PACKETS, SERVICE_BYTES, SERVICE_FLOWS), services)


def _of_nodes(seen: Seen) -> Iterator[Measured]:
    known = seen.state.nodes
    moved = {
        name: seen.counters.nodes[node.number] for name, node in known.items() if node.number in seen.counters.nodes
    }
    yield NODE_PHASE, (((name, node.phase.value), 1) for name, node in known.items())
    yield NODE_FAILS, (((name,), node.fails) for name, node in known.items())
    yield from _moved((NODE_PACKETS, NODE_BYTES, NODE_FLOWS), moved)


def _moved(families: tuple[Family, Family, Family], moved: Mapping[str, Traffic]) -> Iterator[Measured]:
    packets, octets, flows = families
    yield packets, (row for name, t in moved.items() for row in both(name, t.in_packets, t.out_packets))
    yield octets, (row for name, t in moved.items() for row in both(name, t.in_bytes, t.out_bytes))
    yield flows, (((name,), t.flows) for name, t in moved.items())


def both(name: str, there: int, back: int) -> tuple[Row, Row]:
    return ((name, "in"), there), ((name, "out"), back)


def owners(table: SlotTable | None) -> int:
    """How many nodes own a slot."""
    return len(set(array("H", table.owners)) - {NO_NODE}) if table else 0
