"""How many flows a node still has that gets no new ones: counted while somebody asks.

A count goes through the table of flows, which takes as long as that is large, and those who wait ask often: each
gale-node that is about to stop, some times a second, and operators. So one count at a time answers all of them; it is
begun by whoever asks, and rests before the next for as long as it took. What it says of a node is worth something only
if the kernel gave that node no new flows any more when it began; and, in l2 and l3, if those that the node had in slots
that have moved have had time to become known.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

import structlog

from gale.core.state import ClusterState, Node, Phase
from gale.errors import DataplaneError
from gale.ports import Clock, FlowChoice, FlowTable

log = structlog.get_logger()

REST_MS = 100


class Draining:
    """`table`: the flows of this load balancer."""

    def __init__(self, table: Callable[[], FlowTable], clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._counting: asyncio.Task[None] | None = None
        self._rests_until_ms = 0
        self._left: Mapping[tuple[int, int], int] = {}
        self._trouble = ""

    def left(self, state: ClusterState, name: str, held: int) -> int | None:
        """`held`: the generation that the kernel has. None while it may give the node new flows, or nobody has counted
        since it does not and they are known. Raises DataplaneError when the flows cannot be counted."""
        node = state.nodes.get(name)
        if node is None or not node.phase.forwards:
            return 0
        if node.phase is Phase.ROUTING or held < state.generation:
            return None
        idle = self._counting is None or self._counting.done()
        if idle and self._clock.monotonic_ms() >= self._rests_until_ms:
            draining = [node for node in state.nodes.values() if node.phase is Phase.DRAINING]
            self._counting = asyncio.get_running_loop().create_task(self._count(draining))
        if self._trouble:
            raise DataplaneError(self._trouble)
        return self._left.get(_as_it_drains(node))

    def heed(self, state: ClusterState) -> None:
        """Forget what was counted of nodes that drain no more: they may drain again."""
        if self._left:
            draining = {_as_it_drains(node) for node in state.nodes.values() if node.phase is Phase.DRAINING}
            self._left = {key: many for key, many in self._left.items() if key in draining}

    async def _count(self, nodes: list[Node]) -> None:
        began_ms, table = self._clock.monotonic_ms(), self._table()
        found: Counter[int | None] = Counter()
        trouble = ""
        try:
            nodes = [node for node in nodes if table.settled(node.number)]
            choice = FlowChoice(node=nodes[0].number) if len(nodes) == 1 else FlowChoice()
            for (_, _, number, flow_state), many in (await table.count(choice)).items() if nodes else ():
                found[number] += many if flow_state != "ended" else 0
            self._left = {_as_it_drains(node): found[node.number] for node in nodes}
        except DataplaneError as error:
            trouble = str(error)
        if trouble != self._trouble:
            self._trouble = trouble
            log.error("the flows of draining nodes cannot be counted", reason=trouble or "they can again")
        now_ms = self._clock.monotonic_ms()
        self._rests_until_ms = now_ms + max(REST_MS, now_ms - began_ms)


def _as_it_drains(node: Node) -> tuple[int, int]:
    """What tells this draining from an earlier one."""
    return node.number, node.since_ms
