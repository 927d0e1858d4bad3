"""The doors between the decisions and the world: what the controller needs, as protocols.

Each has a real adapter (gale/raft/, gale/dataplane/, gale/clock.py) and a small one that ships for tests and dry
runs (gale/memory.py); none is ever patched.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from gale.core.commands import Command, Order
from gale.core.outcome import Outcome
from gale.core.plan import Write
from gale.core.shared import HealthPolicy
from gale.core.state import ClusterState, NodeInfo


class Clock(Protocol):
    def monotonic_ms(self) -> int:
        """Milliseconds that never run backwards; only differences mean something."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as this machine believes."""
        ...


@dataclass(frozen=True, slots=True)
class ConsensusStatus:
    """One load balancer's view of the agreement. Addresses are quorum entries, "IP:PORT".

    learner  it takes the log and does not vote: it has lost what it once had, or is new, and is being filled
    ignored  peer -> why nothing is exchanged with it: its configuration differs and that is enforced, or its list does
    differs  peer -> what its configuration says differently, where that is only told
    refused  connections to the Raft port that were turned away since the start
    """

    leader: str | None
    term: int
    quorum: bool
    applied_index: int
    connected: frozenset[str]
    learner: bool = False
    ignored: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)
    refused: int = 0


class Consensus(Protocol):
    """The replicated log, and the state that comes of it."""

    @property
    def state(self) -> ClusterState: ...

    @property
    def ready(self) -> bool:
        """True once this replica has caught up with the log after its start."""
        ...

    def status(self) -> ConsensusStatus: ...

    async def propose(self, command: Command) -> Outcome:
        """Append a command and wait until it is applied here. Raises ConsensusError when it ends without an outcome."""
        ...

    async def hand_over(self, to: str = "") -> None:
        """Lead no more, if this one does; `to`, or any other, shall. Raises ConsensusError when nobody takes it."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What the cluster makes of a node: its phase ("unknown" before it is in the log), why its last report was not
    taken, empty when it was, and what it lacks for a service that it takes part in, empty when nothing. `flows`: of a
    node that is about to stop, as Operator's `flows_left`."""

    phase: str
    refusal: str = ""
    lacks: str = ""
    flows: int | None = None


class NodeGate(Protocol):
    """Where nodes' checks go in. Node names and addresses have been checked for form, not for truth."""

    def policy(self) -> HealthPolicy: ...

    def check(self, info: NodeInfo, serving: bool, reason: str = "") -> Standing:
        """Take a check, and say how the node stands now. `reason`: why it does not serve, in its own words."""
        ...

    async def goodbye(self, info: NodeInfo) -> Standing:
        """Take a node's goodbye; returns when it is committed, or could not be within a bound."""
        ...


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """What one load balancer says of itself. `attachments`: interface -> how its program is attached. `degraded`: the
    nodes it has taken away by its own eyes, while it has no quorum. `not_serving`: node -> why it does not, as it said
    here. `troubles`: part of it -> why that cannot do its work. `mended`: differences that were found in the kernel."""

    address: str
    version: str
    config_hash: str
    generation: int
    consensus: ConsensusStatus
    verdicts: Mapping[str, int]
    attachments: Mapping[str, str]
    degraded: tuple[str, ...] = ()
    not_serving: Mapping[str, str] = field(default_factory=dict)
    caught_up: bool = True
    troubles: Mapping[str, str] = field(default_factory=dict)
    mended: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed since the maps were made, in packets and bytes of IP, headers included.

    in, out  from clients to nodes, and back; what nodes answer directly (l2, l3) is not seen
    flows    new ones; in l2 and l3, where none are known, SYNs
    """

    in_packets: int = 0
    in_bytes: int = 0
    out_packets: int = 0
    out_bytes: int = 0
    flows: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """Packets per verdict name, and traffic per service name and per node number; without those that had none.

    moved  service of l2 or l3 -> slots that have moved lately, in which connections are looked for
    """

    verdicts: Mapping[str, int] = field(default_factory=dict)
    services: Mapping[str, Traffic] = field(default_factory=dict)
    nodes: Mapping[int, Traffic] = field(default_factory=dict)
    moved: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """A packet to be explained. Addresses are of the same IP version; `protocol` is "tcp" or "udp".

    opening  as the first packet of a flow (TCP: with SYN) rather than one in its middle (TCP: with ACK)
    """

    source: str
    source_port: int
    destination: str
    destination_port: int
    protocol: str = "tcp"
    opening: bool = False


@dataclass(frozen=True, slots=True)
class FlowEntry:
    """What the table of flows holds about a packet's flow.

    source_port  the port at which the node sees the client
    state        "opening", "established" or "ended"
    quiet_s      since it was last seen
    """

    source_port: int
    state: str
    quiet_s: float


@dataclass(frozen=True, slots=True)
class Header:
    """One header of a packet: "ethernet", "vlan", "ipv4", "ipv6", "tcp", "udp", "icmp", "icmpv6"; what its fields
    hold, as text."""

    name: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of a packet. Where the packet does not get that far, "" or None.

    verdict, action, meaning  as bpf/verdict.h names them
    side                      "public" or "private": on which it would arrive
    slot, node                the slot of the packet's hash, and the number of the node that gets it
    interface                 by which it leaves
    headers                   of the packet that leaves, outermost first
    """

    verdict: str
    action: str
    meaning: str
    side: str = "public"
    mode: str = ""
    service: str = ""
    slot: int | None = None
    node: int | None = None
    flow: FlowEntry | None = None
    interface: str = ""
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class Reached:
    """How a load balancer reaches an address of a node. `trouble`: why it does not, empty when it does. `router`: the
    next hop, when that is not the node itself."""

    address: str
    trouble: str = ""
    interface: str = ""
    mac: str = ""
    router: str = ""
    vlan: int = 0
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class FlowChoice:
    """Which flows are meant: those for which all of it holds. `clients`: a network, None for any; `port`: the client's,
    0 for any. `node`: its number, None for any. `service`, `state`: empty for any."""

    clients: IPv4Network | IPv6Network | None = None
    port: int = 0
    node: int | None = None
    service: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """One of l4, as the load balancer's table has it. `address`, `port`: what the client connected to. `node`: its
    number, None when the node is gone. The rest is that of a FlowEntry."""

    client: str
    client_port: int
    protocol: str
    service: str
    address: str
    port: int
    node: int | None
    source_port: int
    state: str
    quiet_s: float


FlowCounts = Mapping[tuple[str, str, int | None, str], int]
"""(service, protocol, number of the node, state) -> how many flows."""


class FlowTable(Protocol):
    """The flows that a load balancer knows: those of l4; and as far as they are counted, connections of l2 and l3 whose
    slot has moved. All of it raises DataplaneError, takes as long as the table is large, and leaves the loop its turns.
    """

    @property
    def killed(self) -> int:
        """How many were ended here by orders."""
        ...

    async def some(self, choice: FlowChoice, most: int) -> tuple[list[Flow], bool]:
        """So many of the flows that are meant, in no order, and whether there are more."""
        ...

    async def count(self, choice: FlowChoice) -> FlowCounts: ...

    def settled(self, node: int) -> bool:
        """Whether the connections of l2 and l3 that are at work, in slots that the node has lost, have had time to
        become known."""
        ...

    async def kill(self, choice: FlowChoice) -> int:
        """End them: the table forgets them, and both ends of established connections are made to notice. Gives how many
        there were."""
        ...


class Operator(Protocol):
    """What operators may ask, and order. `address`: of this load balancer, a quorum entry."""

    @property
    def address(self) -> str: ...

    @property
    def state(self) -> ClusterState: ...

    def local_status(self) -> LocalStatus: ...

    async def order(self, order: Order) -> Outcome:
        """Have an order committed; its time is filled in. Raises ConsensusError when it ends without an outcome."""
        ...

    def flows_left(self, node: str) -> int | None:
        """Of a node that is to get no new flows: how many it still has here. None while the kernel here may give it
        new ones, or they are not known or not counted yet. Raises DataplaneError."""
        ...

    async def hand_over(self, to: str) -> None:
        """Lead no more, if this one does. Raises ConsensusError."""
        ...

    @property
    def flows(self) -> FlowTable: ...

    async def counters(self) -> Counters: ...

    async def explain(self, question: Question) -> tuple[Question, Explanation]:
        """What becomes of such a packet: of a flow in its middle, or if there is none, of a new one. Gives the question
        that was answered. Raises DataplaneError."""
        ...

    def verify(self) -> Sequence[str]:
        """Compare what the kernel holds with what was written, and mend it. Raises DataplaneError."""
        ...

    def reached(self, node: str) -> Sequence[Reached]:
        """How this load balancer reaches each address of a node, as long as its maps hold it."""
        ...

    async def barrier(self) -> None:
        """Returns when the state holds all that was committed before the call. Raises ConsensusError."""
        ...


class Dataplane(Protocol):
    """The kernel side of one load balancer."""

    def perform(self, write: Write) -> None:
        """Do one write of a plan. Raises DataplaneError; then nothing has changed."""
        ...

    def attach(self) -> None:
        """Put the programs on their interfaces; a program that is there is replaced atomically."""
        ...

    def unprepared(self, heard: Container[str]) -> str:
        """What to wait for before `attach`, while an earlier start's programs forward; empty if nothing. `heard`: the
        addresses of nodes that have asked this load balancer for its services since its start."""
        ...

    @property
    def attachments(self) -> Mapping[str, str]:
        """Interface -> how its program is attached: "native", "generic" or "tc"; empty before `attach`."""
        ...

    def refresh_neighbours(self) -> Iterable[object]:
        """Look up again how nodes are reached: routes and MAC addresses change without a commit. Gives what changed."""
        ...

    @property
    def flows(self) -> FlowTable: ...

    def verdicts(self) -> Mapping[str, int]:
        """Packets per verdict name since the maps were made: cheap, whatever there is of nodes."""
        ...

    async def counters(self) -> Counters:
        """What was counted since the maps were made, in steps between which the loop does its other work."""
        ...

    async def explain(self, question: Question) -> Explanation:
        """Run the program on such a packet, over the maps as they are, without leaving a trace: the first time in
        seconds. Raises DataplaneError when it cannot be asked."""
        ...

    def verify(self) -> Sequence[str]:
        """Compare what the kernel holds with what was written, and mend it: one line for each difference."""
        ...

    def reached(self, number: int) -> Sequence[Reached]:
        """How each address of a node is reached; empty when there is no such node."""
        ...

    def farewell(self, number: int) -> None:
        """Make the TCP clients of a node that lost this number notice (l4): their flows have no node any more."""
        ...
