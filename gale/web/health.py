"""Whether a load balancer is fit to be sent clients' traffic.

That it has no quorum does not make it unfit: it forwards by the last committed view and takes away what dies, and if
all were taken out of use for the want of a majority, nobody would be served at all. Nor does a service without nodes,
which is the same on every load balancer. What does is its own: it has not caught up since its start, its programs are
not on the interfaces, its kernel does not take what is committed, or the others ignore it.
"""

from gale.core.state import ClusterState
from gale.ports import LocalStatus


def unready(local: LocalStatus, state: ClusterState) -> tuple[str, ...]:
    """Why not, a line each; empty when it is ready."""
    reasons = []
    if not local.caught_up:
        reasons.append("it has not caught up with the log since its start")
    if not local.attachments:
        reasons.append("its programs are not attached")
    if trouble := local.troubles.get("dataplane"):
        reasons.append(f"the kernel does not take what is committed: {trouble}")
    if state.ignored(local.address):
        reasons.append(f"its configuration differs and is not accepted: {state.differs(local.address)}")
    return tuple(reasons)
