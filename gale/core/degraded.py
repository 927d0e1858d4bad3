"""Forwarding without a quorum: which nodes a load balancer takes away by its own eyes, and the view without them.

Nothing can be decided then: no node is added, banned, drained or given another share. But a node that dies now must not
receive traffic until a majority is back, which may be hours. So each load balancer lays its own overlay over the last
committed view, and the overlay only takes away: a node that has fallen silent, says that it does not serve, or said
goodbye. A node that was taken away is given back by `checks_before_routing` checks in a row, like any other. When the
quorum is back the overlay is dropped whole: the log has the word again.

If all nodes are silent at once, it is more likely the cable of this load balancer. Silence is evidence only while other
nodes are heard: when none was for half of `checks_timeout`, in which each should have sent a check, silence begins to
count anew, for all, when the first is heard again. So a cable that breaks takes nobody away, and one that heals gives
every node the whole timeout to come back, also where the quorum is back first: nobody is reported as missed for what
this load balancer could not hear. What was taken away before stays away.

The slots of nodes that are taken away go to the others by the rule of slots.py, from the table as it is, so only those
move that must, and a node that is given back finds its own.
"""

from collections.abc import Mapping

from gale.core.slots import SlotTable, rebalance
from gale.core.state import ClusterState
from gale.core.view import View
from gale.core.watch import Watch


class Degraded:
    """`away`: the nodes that are taken away, and why. `since_ms`: silence counts from then on at the earliest."""

    def __init__(self) -> None:
        self.away: Mapping[str, str] = {}
        self.since_ms = 0
        self._committed: ClusterState | None = None
        self._without: Mapping[str, str] = {}
        self._tables: Mapping[str, SlotTable] = {}

    def look(self, state: ClusterState, watch: Watch, now_ms: int) -> None:
        """Bring the overlay in line with what is seen now."""
        if not watch.hears(now_ms):
            self.since_ms = now_ms
        unwell = watch.unwell(now_ms, self.since_ms)
        needed = state.shared.health.checks_before_routing
        kept = {name: why for name, why in self.away.items() if watch.row(name, now_ms) < needed}
        away = {**kept, **unwell}
        self.away = {
            name: why for name, why in away.items() if name in state.nodes and state.nodes[name].phase.forwards
        }

    def view(self, state: ClusterState) -> View:
        """What the maps shall hold: the committed view without the nodes that are away."""
        if not self.away:
            self._committed = None
            return state.view()
        if state is not self._committed:
            self._committed, self._without, self._tables = state, {}, state.tables
        if self.away.keys() != self._without.keys():
            self._without = self.away
            self._tables = {
                name: rebalance(table, state.weights(name, without=self.away)) for name, table in self._tables.items()
            }
        gone = {state.nodes[name].number for name in self.away}
        nodes = {number: address for number, address in state.view().nodes.items() if number not in gone}
        return View(state.generation, nodes, {name: table.owners for name, table in self._tables.items()})
