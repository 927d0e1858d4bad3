"""What this load balancer has seen of the nodes itself, and what of it the log should hear.

Beats are many, edges are few. A check only counts here, and it is worth a report only while the log does not have the
node at `checks_before_routing` yet. So what is due is the difference between what was seen and what the committed state
says this load balancer saw: a report that was lost is due again, and in a quiet cluster nothing is.

A count goes on from the committed one, and the next check in a row is worth one more than that. Checks that arrive
while a report is on its way add nothing; they make the node a little later, never too early.

Time is handed in: `now_ms` is monotonic. If this process did not run for a while, it heard nothing because it did not
listen, and every deadline moves by that while.
"""

from dataclasses import dataclass

from gale.core.commands import Goodbye, Missed, NotServing, Observation, Passed
from gale.core.state import ClusterState, NodeInfo, Phase


@dataclass(slots=True)
class _Seen:
    heard_ms: int
    info: NodeInfo | None = None
    serving: bool = True
    left: bool = False
    fresh: bool = False  # a check came that has not been weighed yet


class Watch:
    """The nodes as `me` (a quorum address) sees them."""

    def __init__(self, me: str, stall_ms: int = 500) -> None:
        self._me = me
        self._stall_ms = stall_ms
        self._seen: dict[str, _Seen] = {}
        self._ticked_ms: int | None = None

    def check(self, info: NodeInfo, serving: bool, now_ms: int) -> None:
        self._seen[info.id] = _Seen(now_ms, info, serving, fresh=True)

    def goodbye(self, node: str) -> None:
        if node in self._seen:
            self._seen[node].left = True

    def tick(self, state: ClusterState, now_ms: int) -> None:
        """Note the passing of time, and take up nodes that the log says this load balancer has heard from."""
        if self._ticked_ms is not None and (gap_ms := now_ms - self._ticked_ms) > self._stall_ms:
            for seen in self._seen.values():
                seen.heard_ms += gap_ms
        self._ticked_ms = now_ms
        for name, node in state.nodes.items():
            if name not in self._seen and node.checks.get(self._me, 0) > 0:
                self._seen[name] = _Seen(now_ms)

    def due(self, state: ClusterState, now_ms: int) -> tuple[Observation, ...]:
        """What to report now. Ask again only when the report before has ended."""
        timeout_ms = state.shared.health.checks_timeout_ms
        due = []
        for name, seen in list(self._seen.items()):
            silent = now_ms - seen.heard_ms >= timeout_ms
            if observation := self._weigh(state, name, seen, silent):
                due.append(observation)
            elif silent or seen.left:
                del self._seen[name]
            seen.fresh = False
        return tuple(due)

    def _weigh(self, state: ClusterState, name: str, seen: _Seen, silent: bool) -> Observation | None:
        node = state.nodes.get(name)
        known = node.checks.get(self._me, 0) if node else 0
        if seen.left:
            return Goodbye(name) if node and node.phase not in (Phase.LEFT, Phase.BANNED) else None
        if silent:
            return Missed(name) if known > 0 else None
        if not seen.serving:
            return NotServing(name) if seen.fresh and node and (node.checks or node.phase.forwards) else None
        if seen.fresh and seen.info and not (node and node.phase is Phase.BANNED):
            count = min(known + 1, state.shared.health.checks_before_routing)
            if count != known or node is None or node.info != seen.info:
                return Passed(seen.info, count)
        return None
