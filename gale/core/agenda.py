"""What a load balancer should propose next, given all it knows. One proposal at a time; the rest gathers.

Everything here is the difference between how things are and what the log says: a proposal that was lost is due again,
one that was committed is not.
"""

from collections.abc import Set
from dataclasses import replace

from gale.core.commands import Announce, Command, LiftBans, SetAlive
from gale.core.state import ClusterState


def next_duty(state: ClusterState, me: Announce, *, leads: bool, connected: Set[str], time_ms: int) -> Command | None:
    """The next command that is due, reports of nodes aside.

    me         how this load balancer announces itself
    leads      it is the leader, and has a quorum
    connected  the load balancers the leader is in contact with, itself included
    time_ms    this machine's wall clock
    """
    known = state.load_balancers.get(me.load_balancer)
    announced = known is not None and (known.api, known.version, known.shared, known.members) == (
        me.api,
        me.version,
        me.shared,
        me.members,
    )
    reference = state.reference
    refers = reference is not None and (reference.shared, reference.enforced) == (me.shared, me.enforces)
    if not announced or (leads and not (refers and state.leader == me.load_balancer)):
        return replace(me, time_ms=time_ms, leads=leads)
    if not leads:
        return None
    for address, load_balancer in sorted(state.load_balancers.items()):
        if load_balancer.alive != (address in connected):
            return SetAlive(time_ms, address, address in connected)
    if any(node.banned_until_ms is not None and node.banned_until_ms <= time_ms for node in state.nodes.values()):
        return LiftBans(time_ms)
    return None
