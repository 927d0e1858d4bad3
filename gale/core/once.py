"""Exactly once: which proposals the state still takes, and which it has taken already.

The state remembers the last epoch and sequence number of each proposer, and of those that it has forgotten, because
they are no members any more, the greatest epoch among them. So a proposal that arrives again, however late, is known
for what it is.
"""

from gale.core.commands import Origin
from gale.core.outcome import Repeated, Superseded
from gale.core.state import ClusterState


def stale(state: ClusterState, origin: Origin) -> Repeated | Superseded | None:
    """Why this proposal's command has no turn; None when it has."""
    known = state.proposers.get(origin.proposer)
    if known is None:
        return Superseded(state.forgotten_epoch) if origin.epoch <= state.forgotten_epoch else None
    epoch, sequence = known
    if origin.epoch < epoch:
        return Superseded(epoch)
    return Repeated() if origin.epoch == epoch and origin.sequence <= sequence else None


def next_epoch(state: ClusterState, me: str, wall_ms: int) -> int:
    """The epoch with which a proposer begins: greater than any that the state knows of it, also when the machine's
    clock was set back. A state that is not level may know too little; then the first proposal is Superseded."""
    last, _ = state.proposers.get(me, (state.forgotten_epoch, 0))
    return max(wall_ms, last + 1)
