"""The next state while one command is being applied: changes are gathered here, and become a state at the end.

A draft copies a mapping when the command first changes it, so that a report of a thousand observations costs one copy,
and one that changes nothing costs none. Every change of phase passes through `turn`, which is what keeps the record of
transitions complete; every change of a node passes through `put`, which notices whether forwarding is concerned.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gale.core.commands import Origin
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

CAUSE_MAX = 400


class Draft:
    """
    touched      the nodes that were changed so far, or forgotten
    moves_flows  a change so far concerns which nodes receive packets, or in which shares

    `who` is behind the command, and `index` its place in the log: what is recorded names both.
    """

    def __init__(self, state: ClusterState, time_ms: int, who: str = "", index: int = 0) -> None:
        self.state = state
        self._who = who
        self._index = index
        self.clock_ms = max(state.clock_ms, time_ms)
        self.nodes: Mapping[str, Node] = state.nodes
        self.addresses: Mapping[str, tuple[str, ...]] = state.addresses
        self.load_balancers = dict(state.load_balancers)
        self.proposers = dict(state.proposers)
        self.forgotten_epoch = state.forgotten_epoch
        self.members = state.members
        self.reference = state.reference
        self.leader = state.leader
        self.voters = state.voters()
        self.touched: set[str] = set()
        self.moves_flows = False
        self._written: dict[str, Node] | None = None
        self._indexed: dict[str, tuple[str, ...]] | None = None
        self._free: list[int] | None = None
        self._transitions: list[Transition] = []

    @property
    def policy(self) -> HealthPolicy:
        return self.reference.shared.health if self.reference else HealthPolicy()

    @property
    def services(self) -> tuple[Service, ...]:
        return self.reference.shared.services if self.reference else ()

    def note(self, origin: Origin) -> None:
        """This proposal has had its turn, whatever comes of it."""
        self.proposers[origin.proposer] = (origin.epoch, origin.sequence)

    # nodes

    def put(self, node: Node) -> Node:
        name = node.info.id
        before = self.nodes.get(name)
        self._nodes()[name] = node
        self.touched.add(name)
        if before is None or before.info.addresses != node.info.addresses:
            self._unindex(before)
            index = self._addresses()
            for address in node.info.addresses:
                index[address] = tuple(sorted((*index.get(address, ()), name)))
        self.moves_flows |= _route(before) != _route(node)
        return node

    def turn(self, node: Node, phase: Phase, cause: str, **changes: Any) -> Node:
        """Move a node to another phase, with any further changes of its fields, and record it."""
        if phase is not node.phase:
            self.record(f"node {node.info.id}", node.phase.value, phase.value, cause)
            changes["since_ms"] = self.clock_ms
        return self.put(replace(node, phase=phase, **changes))

    def admit(self, info: NodeInfo) -> Node | None:
        """A node that is new here, with the least free number. When all are taken, the one gone longest makes room."""
        if self._free is None:
            taken = {node.number for node in self.nodes.values()}
            self._free = [number for number in range(MAX_NODES, 0, -1) if number not in taken]
        if not self._free:
            gone = [
                n for n in self.nodes.values() if n.phase in (Phase.LEFT, Phase.FAILED) and not any(n.checks.values())
            ]
            if not gone:
                return None
            self._forget(min(gone, key=lambda node: (node.since_ms, node.number)), f"room for node {info.id}")
        self.record(f"node {info.id}", "unknown", Phase.JOINING.value, f"first check, from {info.address}")
        return self.put(Node(info, self._free.pop(), since_ms=self.clock_ms))

    def _forget(self, node: Node, cause: str) -> None:
        self.record(f"node {node.info.id}", node.phase.value, "forgotten", cause)
        del self._nodes()[node.info.id]
        self.touched.add(node.info.id)
        self._unindex(node)
        if self._free is not None:
            self._free.append(node.number)

    def _nodes(self) -> dict[str, Node]:
        if self._written is None:
            self.nodes = self._written = dict(self.state.nodes)
        return self._written

    def _addresses(self) -> dict[str, tuple[str, ...]]:
        if self._indexed is None:
            self.addresses = self._indexed = dict(self.state.addresses)
        return self._indexed

    def _unindex(self, node: Node | None) -> None:
        if node is not None:
            index = self._addresses()
            for address in node.info.addresses:
                index[address] = tuple(n for n in index.get(address, ()) if n != node.info.id)
                if not index[address]:
                    del index[address]

    # load balancers

    def put_load_balancer(self, load_balancer: LoadBalancer, cause: str) -> None:
        before = self.load_balancers.get(load_balancer.address)
        self.load_balancers[load_balancer.address] = load_balancer
        self.record(f"load balancer {load_balancer.address}", _word(before), _word(load_balancer), cause)
        self.voters = self._so_far().voters()

    def put_members(self, members: tuple[str, ...]) -> None:
        """Put this list in force, and forget the load balancers that are not on it."""
        self.record("members", ", ".join(self.members) or "none", ", ".join(members), "all of them announced this list")
        self.members = members
        for address in sorted(self.load_balancers.keys() - set(members)):
            self.record(f"load balancer {address}", _word(self.load_balancers[address]), "forgotten", "is no member")
            del self.load_balancers[address]
        for proposer in self.proposers.keys() - set(members):
            self.forgotten_epoch = max(self.forgotten_epoch, self.proposers.pop(proposer)[0])
        self.voters = self._so_far().voters()

    def lead(self, address: str) -> None:
        """This load balancer says that it leads."""
        if address != self.leader:
            self.record("leader", self.leader or "none", address, "it was elected")
            self.leader = address

    def refer(self, reference: Reference, cause: str) -> None:
        if reference != self.reference:
            before = self.reference.shared.hash if self.reference else "none"
            self.record("reference configuration", before, reference.shared.hash, cause)
            self.reference = reference
            self.moves_flows = True
            self.voters = self._so_far().voters()

    # the end

    def transitions(self) -> tuple[Transition, ...]:
        """What this command has changed so far."""
        return tuple(self._transitions)

    def finish(self) -> ClusterState:
        kept = self.state.transitions
        if self._transitions:
            kept = (kept + self.transitions())[-MAX_TRANSITIONS:]
        return replace(
            self._so_far(),
            clock_ms=self.clock_ms,
            leader=self.leader,
            members=self.members,
            proposers=self.proposers,
            forgotten_epoch=self.forgotten_epoch,
            nodes=self.nodes,
            addresses=self.addresses,
            transitions=kept,
        )

    def _so_far(self) -> ClusterState:
        return replace(self.state, load_balancers=self.load_balancers, reference=self.reference)

    def record(self, subject: str, before: str, after: str, cause: str) -> None:
        last = self._transitions or self.state.transitions
        sequence = last[-1].sequence + 1 if last else 1
        self._transitions.append(
            Transition(sequence, self.clock_ms, subject, before, after, cause[:CAUSE_MAX], self._who, self._index)
        )


def _word(known: LoadBalancer | None) -> str:
    return "unknown" if known is None else "alive" if known.alive else "dead"


def _route(node: Node | None) -> tuple[object, ...] | None:
    """What of a node the forwarding view follows from."""
    if node is None or not node.phase.forwards:
        return None
    return node.number, node.phase, node.info.addresses, node.weight, node.info.services
