"""What this load balancer has seen of the nodes itself, and what of it the log should hear.

Beats are many, edges are few. A check only counts here, and it is worth a report only while the log does not have the
node at `checks_before_routing` yet. So what is due is the difference between what was seen and what the committed state
says this load balancer saw: a report that was lost is due again, and in a quiet cluster nothing is.

A count goes on from the committed one, and the next check in a row is worth one more than that. Checks that arrive
while a report is on its way add nothing; they make the node a little later, never too early.

Time is handed in: `now_ms` is monotonic. If this process did not run for a while, it heard nothing because it did not
listen, and every deadline moves by that while.

A shorter timeout is used once the longer one before it is over: until then nodes go on as they were told.

The nodes are kept in the order in which they were last heard, so that those who are silent are found at the front, and
a quiet cluster of ten thousand costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from gale.core.commands import REPORT_BYTES_MAX, Goodbye, Missed, NotServing, Observation, Passed, bytes_most
from gale.core.state import MAX_NODES, ClusterState, Node, NodeInfo, Phase


@dataclass(slots=True)
class _Seen:
    """`row`: checks in a row that said the node serves, however many of them are worth a report. `reason`: why it does
    not, in the node's words."""

    heard_ms: int
    info: NodeInfo | None = None
    serving: bool = True
    left: bool = False
    row: int = 0
    reason: str = ""


class Watch:
    """The nodes as `me` (a quorum address) sees them."""

    def __init__(self, me: str, stall_ms: int = 500) -> None:
        self._me = me
        self._stall_ms = stall_ms
        self._timeout_ms = 0
        self._shorter_from_ms: int | None = None
        self._agreed = False
        self._seen: dict[str, _Seen] = {}
        self._news: dict[str, None] = {}  # a check or a goodbye came that has not been weighed yet
        self._unwell: set[str] = set()  # said that it does not serve, or goodbye
        self._missed: frozenset[str] = frozenset()  # the log says that this load balancer missed its checks
        self._nodes: Mapping[str, Node] | None = None
        self._heard_ms: int | None = None
        self._ticked_ms: int | None = None

    def check(self, info: NodeInfo, serving: bool, now_ms: int, reason: str = "") -> None:
        before = self._seen.pop(info.id, None)
        if before is None and len(self._seen) >= MAX_NODES:
            return  # more than can be known: strangers, who are forgotten again when they are silent
        goes_on = before is not None and not before.left and now_ms - before.heard_ms < self._timeout_ms
        row = (before.row if before and goes_on else 0) + 1 if serving else 0
        self._seen[info.id] = _Seen(now_ms, info, serving, row=row, reason="" if serving else reason)
        self._news[info.id] = None
        self._heard_ms = now_ms
        (self._unwell.discard if serving else self._unwell.add)(info.id)

    def heard(self) -> frozenset[str]:
        """The addresses of nodes that checked in here themselves."""
        return frozenset(seen.info.address for seen in self._seen.values() if seen.info)

    def goodbye(self, node: str) -> None:
        if node in self._seen:
            self._seen[node].left = True
            self._news[node] = None
            self._unwell.add(node)

    def tick(self, state: ClusterState, now_ms: int) -> None:
        """Note the passing of time, and take up nodes that the log says this load balancer has heard from."""
        self._heed(state, now_ms)
        if self._ticked_ms is not None and (gap_ms := now_ms - self._ticked_ms) > self._stall_ms:
            for seen in self._seen.values():
                seen.heard_ms += gap_ms
            self._heard_ms = self._heard_ms and self._heard_ms + gap_ms
        self._ticked_ms = now_ms
        if state.nodes is self._nodes:
            return
        self._nodes = state.nodes
        counts = {name: node.checks.get(self._me, -1) for name, node in state.nodes.items()}
        self._missed = frozenset(name for name, count in counts.items() if count == 0)
        for name, count in counts.items():
            if count > 0 and name not in self._seen:
                self._seen[name] = _Seen(now_ms)

    def _heed(self, state: ClusterState, now_ms: int) -> None:
        """The timeout that is in force for those who were heard."""
        told_ms = state.shared.health.checks_timeout_ms
        if told_ms < self._timeout_ms and self._agreed and self._seen:
            if self._shorter_from_ms is None:
                self._shorter_from_ms = now_ms + self._timeout_ms
            if now_ms < self._shorter_from_ms:
                return
        self._timeout_ms, self._shorter_from_ms, self._agreed = told_ms, None, state.reference is not None

    def excuse(self, until_ms: int) -> None:
        """Until then nobody could be heard here: silence counts from there."""
        for seen in self._seen.values():
            seen.heard_ms = max(seen.heard_ms, until_ms)

    def due(self, state: ClusterState, now_ms: int) -> tuple[Observation, ...]:
        """What to report now, as much as one report may hold. Ask again only when the report before has ended."""
        self._heed(state, now_ms)
        due: list[Observation] = []
        room = REPORT_BYTES_MAX
        silent = self._silent(now_ms)
        for name in dict.fromkeys((*silent, *self._news)):
            seen = self._seen[name]
            observation = self._weigh(state, name, seen, name in silent)
            if observation:
                room -= bytes_most(observation)
                if room < 0:
                    break
                due.append(observation)
            elif name in silent or seen.left:
                self._drop(name)
            if not (observation and seen.left):
                self._news.pop(name, None)
        return tuple(due)

    def _weigh(self, state: ClusterState, name: str, seen: _Seen, silent: bool) -> Observation | None:
        node = state.nodes.get(name)
        known = node.checks.get(self._me, 0) if node else 0
        if seen.left:
            return Goodbye(name) if node and node.phase not in (Phase.LEFT, Phase.BANNED) else None
        if silent:
            return Missed(name) if known > 0 else None
        if not seen.serving:
            return NotServing(name) if node and (node.checks or node.phase.forwards) else None
        if seen.info and not (node and node.phase is Phase.BANNED):
            count = min(known + 1, state.shared.health.checks_before_routing)
            if count != known or node is None or node.info != seen.info:
                return Passed(seen.info, count)
        return None

    def until_silence_ms(self, now_ms: int) -> int | None:
        """When the node that was heard longest ago will be silent; None when one is, or there is none."""
        first = next(iter(self._seen.values()), None)
        until_ms = first.heard_ms + self._timeout_ms - now_ms if first else 0
        return until_ms if until_ms > 0 else None

    def _silent(self, now_ms: int) -> dict[str, None]:
        last_ms = now_ms - self._timeout_ms
        return dict.fromkeys(
            name for name, _ in takewhile(lambda item: item[1].heard_ms <= last_ms, self._seen.items())
        )

    def _drop(self, name: str) -> None:
        del self._seen[name]
        self._unwell.discard(name)

    def reasons(self) -> dict[str, str]:
        """Of the nodes that say that they do not serve: why, where they said it."""
        told = ((name, self._seen[name]) for name in sorted(self._unwell))
        return {name: seen.reason for name, seen in told if seen.reason and not seen.left}

    # while nothing can be reported (degraded.py)

    def hears(self, now_ms: int) -> bool:
        """Some node was heard lately: what is silent is so of itself. Nodes send a check every third of the timeout."""
        return self._heard_ms is not None and 2 * (now_ms - self._heard_ms) < self._timeout_ms

    def unwell(self, now_ms: int, since_ms: int) -> dict[str, str]:
        """The nodes that were heard here once and are not well, and why. Silence counts from `since_ms` at most."""
        found = {}
        if now_ms - since_ms >= self._timeout_ms:
            silent = [*self._silent(now_ms), *(name for name in self._missed if name not in self._seen)]
            found = dict.fromkeys(silent, f"silent for {self._timeout_ms} ms")
        for name in self._unwell:
            seen = self._seen[name]
            found[name] = "said goodbye" if seen.left else _with("says that it is not serving", seen.reason)
        return found

    def row(self, name: str, now_ms: int) -> int:
        """How many checks in a row the node has passed until now."""
        seen = self._seen.get(name)
        return seen.row if seen and not seen.left and now_ms - seen.heard_ms < self._timeout_ms else 0


def _with(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what
