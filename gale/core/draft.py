"""The next state while one command is being applied: changes are gathered here, and become a state at the end.

A draft copies a mapping when the command first changes it, so that a report of a thousand observations costs one copy.
Every change of phase passes through `turn`, which is what keeps the record of transitions complete.
"""

from dataclasses import replace
from typing import Any

from gale.core.shared import HealthPolicy, Service
from gale.core.state import (
    MAX_NODES,
    MAX_TRANSITIONS,
    ClusterState,
    LoadBalancer,
    Node,
    NodeInfo,
    Phase,
    Reference,
    Transition,
)


class Draft:
    def __init__(self, state: ClusterState, time_ms: int) -> None:
        self.state = state
        self.clock_ms = max(state.clock_ms, time_ms)
        self.nodes = dict(state.nodes)
        self.load_balancers = dict(state.load_balancers)
        self.reference = state.reference
        self.voters = state.voters()
        self._transitions: list[Transition] = []

    @property
    def policy(self) -> HealthPolicy:
        return self.reference.shared.health if self.reference else HealthPolicy()

    @property
    def services(self) -> tuple[Service, ...]:
        return self.reference.shared.services if self.reference else ()

    def put(self, node: Node) -> Node:
        self.nodes[node.info.id] = node
        return node

    def turn(self, node: Node, phase: Phase, cause: str, **changes: Any) -> Node:
        """Move a node to another phase, with any further changes of its fields, and record it."""
        if phase is not node.phase:
            self._record(f"node {node.info.id}", node.phase.value, phase.value, cause)
            changes["since_ms"] = self.clock_ms
        return self.put(replace(node, phase=phase, **changes))

    def admit(self, info: NodeInfo) -> Node | None:
        """A node that is new here, with a number of its own. When all are taken, the one gone longest makes room."""
        if len(self.nodes) >= MAX_NODES:
            gone = [
                n for n in self.nodes.values() if n.phase in (Phase.LEFT, Phase.FAILED) and not any(n.checks.values())
            ]
            if not gone:
                return None
            forgotten = min(gone, key=lambda node: (node.since_ms, node.number))
            self._record(f"node {forgotten.info.id}", forgotten.phase.value, "forgotten", f"room for node {info.id}")
            del self.nodes[forgotten.info.id]
        taken = {node.number for node in self.nodes.values()}
        number = next(n for n in range(1, MAX_NODES + 1) if n not in taken)
        self._record(f"node {info.id}", "unknown", Phase.JOINING.value, f"first check, from {info.address}")
        return self.put(Node(info, number, since_ms=self.clock_ms))

    def put_load_balancer(self, load_balancer: LoadBalancer, cause: str) -> None:
        def word(known: LoadBalancer | None) -> str:
            return "unknown" if known is None else "alive" if known.alive else "dead"

        before = self.load_balancers.get(load_balancer.address)
        self.load_balancers[load_balancer.address] = load_balancer
        self._record(f"load balancer {load_balancer.address}", word(before), word(load_balancer), cause)
        self.voters = self._so_far().voters()

    def refer(self, reference: Reference, cause: str) -> None:
        if reference != self.reference:
            before = self.reference.shared.hash if self.reference else "none"
            self._record("reference configuration", before, reference.shared.hash, cause)
            self.reference = reference
            self.voters = self._so_far().voters()

    def transitions(self) -> tuple[Transition, ...]:
        """What this command has changed so far."""
        return tuple(self._transitions)

    def finish(self) -> ClusterState:
        kept = (self.state.transitions + self.transitions())[-MAX_TRANSITIONS:]
        return replace(self._so_far(), clock_ms=self.clock_ms, nodes=self.nodes, transitions=kept)

    def _so_far(self) -> ClusterState:
        return replace(self.state, load_balancers=self.load_balancers, reference=self.reference)

    def _record(self, subject: str, before: str, after: str, cause: str) -> None:
        last = self._transitions or self.state.transitions
        sequence = last[-1].sequence + 1 if last else 1
        self._transitions.append(Transition(sequence, self.clock_ms, subject, before, after, cause))
