"""The replicated state: what every load balancer knows after the same log.

All of it is immutable; apply.py alone makes the next one. Times are milliseconds since 1970-01-01 UTC as the
proposers of commands gave them; `clock_ms` is the largest one seen, and the only clock there is in here.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gale.core.shared import Service, SharedConfig, differences
from gale.core.slots import SlotTable
from gale.core.view import Addresses, View

MAX_NODES = 16_383
"""Nodes known at a time. Their numbers, 1 to this, index the kernel's node table."""

MAX_TRANSITIONS = 1_000
"""How many of the last transitions are kept for operators: in memory half a mebibyte, at the very most two."""


class Phase(StrEnum):
    JOINING = "joining"
    ROUTING = "routing"
    DRAINING = "draining"
    FAILED = "failed"
    BANNED = "banned"
    LEFT = "left"

    @property
    def forwards(self) -> bool:
        """Packets may reach a node in this phase: new flows when routing, old ones when draining too."""
        return self in FORWARDING


FORWARDING = (Phase.ROUTING, Phase.DRAINING)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a node says of itself. Without `services` it serves all of them; without `address6` it has no IPv6.
    `leaving`: it is about to stop, and wants no new flows."""

    id: str
    address: str
    weight: int = 1
    services: tuple[str, ...] = ()
    reports_to: int = 1
    address6: str = ""
    leaving: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those it has."""
        return (self.address, self.address6) if self.address6 else (self.address,)

    def takes(self, service: Service, needs_address6: bool) -> bool:
        """Whether it may be given flows of a service: it takes part in it, and has what that needs."""
        return (not self.services or service.name in self.services) and (bool(self.address6) or not needs_address6)

    def lacks(self, services: Iterable[Service]) -> str:
        """What keeps it from services in which it takes part; empty when nothing does."""
        if self.address6:
            return ""
        kept = [
            service.name
            for service in services
            if service.needs_address6 and (not self.services or service.name in self.services)
        ]
        return f"it has no IPv6 address, which {', '.join(kept)} needs: it gets no flows of that" if kept else ""


@dataclass(frozen=True, slots=True)
class Node:
    """`number` stays with the node as long as it is known. `drained` and `ordered_weight` (0: none) are orders of
    operators and outlive failures. Without `banned_until_ms` a ban lasts until it is lifted."""

    info: NodeInfo
    number: int
    phase: Phase = Phase.JOINING
    since_ms: int = 0
    checks: Mapping[str, int] = field(default_factory=dict)
    fails: int = 0
    banned_until_ms: int | None = None
    drained: bool = False
    ordered_weight: int = 0

    @property
    def stopping(self) -> str:
        """In words, while it is drained because it will be gone soon; else empty."""
        return "its gale-node was told to stop" if self.info.leaving and self.phase is Phase.DRAINING else ""

    @property
    def rests(self) -> bool:
        """It is to get no new flows, by an order or by its own wish."""
        return self.drained or self.info.leaving

    @property
    def weight(self) -> int:
        """Its share of new flows beside other nodes: as ordered, or as it says itself."""
        return self.ordered_weight or self.info.weight


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """One load balancer as it announced itself. `api` is "IP:PORT" of its management API, `members` its list."""

    address: str
    api: str
    version: str
    shared: SharedConfig
    alive: bool = True
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """The configuration in force: the leader's. `enforced` as the leader's `enforce_single_configuration` says."""

    shared: SharedConfig
    enforced: bool


@dataclass(frozen=True, slots=True)
class Transition:
    """Something an operator may ask about later: what changed from what to what, when, why, and by whom.

    who    the operator who ordered it, or the load balancer that reported what led to it
    index  of the entry of the log that did it
    """

    sequence: int
    time_ms: int
    subject: str
    before: str
    after: str
    cause: str
    who: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class ClusterState:
    """
    leader           the load balancer that said last that it leads; who leads now is the consensus' to say
    addresses        address -> the names of the nodes known there; follows from `nodes`
    members          the list of load balancers in force (membership.py), empty at first
    proposers        proposer -> its last epoch and sequence number (once.py)
    forgotten_epoch  the greatest epoch among the proposers that were forgotten
    """

    clock_ms: int = 0
    generation: int = 0
    reference: Reference | None = None
    leader: str = ""
    members: tuple[str, ...] = ()
    proposers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    forgotten_epoch: int = 0
    load_balancers: Mapping[str, LoadBalancer] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tables: Mapping[str, SlotTable] = field(default_factory=dict)
    transitions: tuple[Transition, ...] = ()

    @property
    def shared(self) -> SharedConfig:
        return self.reference.shared if self.reference else SharedConfig()

    def differs(self, address: str) -> str:
        """What a load balancer's configuration says differently from the reference; empty when it agrees."""
        known = self.load_balancers.get(address)
        return differences(self.shared, known.shared) if known and known.shared != self.shared else ""

    def ignored(self, address: str) -> bool:
        """Enforcement is on and this load balancer's configuration differs: its reports do not count."""
        return self.reference is not None and self.reference.enforced and bool(self.differs(address))

    def voters(self) -> frozenset[str]:
        """The load balancers whose opinion counts: alive and not ignored."""
        return frozenset(a for a, lb in self.load_balancers.items() if lb.alive and not self.ignored(a))

    def weights(self, service: str, without: Container[str] = ()) -> Mapping[int, int]:
        """Node number -> weight of the nodes that take new flows of a service."""
        configured = next((known for known in self.shared.services if known.name == service), None)
        if configured is None:
            return {}
        routing, needs = Phase.ROUTING, configured.needs_address6  # ten thousand nodes, at each change of one
        return {
            node.number: node.ordered_weight or info.weight
            for name, node in self.nodes.items()
            if node.phase is routing and (info := node.info).takes(configured, needs) and name not in without
        }

    def view(self) -> View:
        """What the kernel's maps must hold."""
        nodes = {
            node.number: Addresses(node.info.address, node.info.address6)
            for node in self.nodes.values()
            if node.phase in FORWARDING
        }
        return View(self.generation, nodes, {name: table.owners for name, table in self.tables.items()})
