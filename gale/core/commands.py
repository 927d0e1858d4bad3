"""What may enter the log. Commands state facts ("passed 2 checks"), never steps ("+1"): twice does no harm.

Each carries `time_ms`, the proposer's wall clock in milliseconds since 1970-01-01 UTC. Load balancers are named by
their quorum address, "IP:PORT"; nodes by their id.
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


@dataclass(frozen=True, slots=True)
class Report:
    """What one load balancer saw since its last report, in order."""

    time_ms: int
    load_balancer: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """A load balancer says who it is. `leads`: it is the leader, and its configuration becomes the reference."""

    time_ms: int
    load_balancer: str
    api: str
    version: str
    shared: SharedConfig
    enforces: bool
    leads: bool


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
class Drain:
    """Give a node no new flows (`on`), or give it some again."""

    time_ms: int
    node: str
    on: bool


Command = Report | Announce | SetAlive | LiftBans | Drain
