"""What may enter the log. Commands state facts ("passed 2 checks"), never steps ("+1").

Each carries `time_ms`, the proposer's wall clock in milliseconds since 1970-01-01 UTC. Load balancers are named by
their quorum address, "IP:PORT"; nodes by their id.

A command enters the log inside a proposal, whose origin numbers it. A proposer that does not know what became of a
proposal sends it again with the same origin, and the state takes it once. An epoch is one life of a proposer: it takes
a higher one when it starts, and what it proposed in an earlier life and is still under way comes to nothing. Within an
epoch the sequence grows, and a proposer has one proposal under way at a time: the state remembers the last number only,
so a lower one that arrives late cannot be told from one that was taken.
"""

from dataclasses import dataclass

from gale.core.shared import SharedConfig
from gale.core.state import NodeInfo


@dataclass(frozen=True, slots=True)
class Passed:
    """The node's checks arrived `count` times in a row, counted up to `checks_before_routing`."""

    node: NodeInfo
    count: int


@dataclass(frozen=True, slots=True)
class Missed:
    """Nothing came from the node for `checks_timeout`."""

    node: str


@dataclass(frozen=True, slots=True)
class NotServing:
    """The node's agent is well and says that its service is not."""

    node: str


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The node's agent was told to stop."""

    node: str


Observation = Passed | Missed | NotServing | Goodbye


REPORT_BYTES_MAX = 12 * 1024
"""What the observations of a report may come to, by `bytes_most`: a command in the log has at most 16 KiB."""


def bytes_most(observation: Observation) -> int:
    """What an observation comes to in the log, at most."""
    if not isinstance(observation, Passed):
        return 16 + len(observation.node)
    info = observation.node
    return 64 + len(info.id) + sum(map(len, info.addresses)) + sum(4 + len(service) for service in info.services)


@dataclass(frozen=True, slots=True)
class Report:
    """What one load balancer saw since its last report, in order."""

    time_ms: int
    load_balancer: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """A load balancer says who it is. `leads`: it is the leader, and its configuration becomes the reference.
    `members`: the load balancers it is configured with, itself included, sorted."""

    time_ms: int
    load_balancer: str
    api: str
    version: str
    shared: SharedConfig
    enforces: bool
    leads: bool
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetAlive:
    """The leader gained or lost contact with a load balancer."""

    time_ms: int
    load_balancer: str
    alive: bool


@dataclass(frozen=True, slots=True)
class LiftBans:
    """Lift every ban that has ended by `time_ms`."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class Given:
    """Who gave an order, and why, in their own words: for those who read the events later. Empty: not said."""

    who: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """Give a node no new flows (`on`), or give it some again."""

    time_ms: int
    node: str
    on: bool
    given: Given = Given()


@dataclass(frozen=True, slots=True)
class Ban:
    """Take a node out and refuse its checks, for so long; 0: until its ban is lifted."""

    time_ms: int
    node: str
    for_ms: int = 0
    given: Given = Given()


@dataclass(frozen=True, slots=True)
class Unban:
    """Let a banned node join again, with no fails, whoever banned it."""

    time_ms: int
    node: str
    given: Given = Given()


@dataclass(frozen=True, slots=True)
class SetWeight:
    """Give a node a weight in place of the one that it says; 0: its own again."""

    time_ms: int
    node: str
    weight: int
    given: Given = Given()


@dataclass(frozen=True, slots=True)
class HandOver:
    """The leader is told to hand leadership over, `to` this load balancer; empty: to whichever is level with it.

    Changes nothing: it stands in the log so that events tell who ordered it."""

    time_ms: int
    to: str = ""
    given: Given = Given()


@dataclass(frozen=True, slots=True)
class Noted:
    """What came of an order that changes nothing of the state: it stands in the log so that events tell of it."""

    time_ms: int
    subject: str
    before: str
    after: str
    cause: str
    given: Given = Given()


@dataclass(frozen=True, slots=True)
class Barrier:
    """Changes nothing. Who has proposed it and sees it applied has seen everything that was committed before."""

    time_ms: int


NodeOrder = Drain | Ban | Unban | SetWeight
Order = NodeOrder | HandOver | Noted
Command = Report | Announce | SetAlive | LiftBans | Barrier | Order


@dataclass(frozen=True, slots=True)
class Origin:
    """Who proposed something, in which of its lives, and as which of its proposals."""

    proposer: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Proposal:
    origin: Origin
    command: Command
