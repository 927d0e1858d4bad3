"""What became of a proposal.

Applied and Rejected are the outcomes of its command, which has had its one turn. Repeated and Superseded mean that it
had none now: the state has taken it before, or its proposer has begun a newer epoch since.
"""

from dataclasses import dataclass

from gale.core.state import Transition


@dataclass(frozen=True, slots=True)
class Refusal:
    """One observation of a report that was not taken."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Applied:
    transitions: tuple[Transition, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: str


@dataclass(frozen=True, slots=True)
class Repeated:
    """This origin, or a later one of the same epoch, was taken before."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """The proposer's epoch is over: it must begin one that is greater than `epoch`."""

    epoch: int


Outcome = Applied | Rejected | Repeated | Superseded
