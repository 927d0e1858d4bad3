"""What became of a command: applied, with what changed and what was refused in it, or rejected with the reason."""

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


Outcome = Applied | Rejected
