"""Adapters that keep everything in memory: for tests, and for trying decisions out without a kernel or a network.

They implement the ports of gale/ports.py and enforce the same rules as the real ones; nothing is patched to use them.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from ipaddress import ip_address

from gale.core.apply import apply
from gale.core.commands import Command, Origin, Proposal
from gale.core.once import next_epoch
from gale.core.outcome import Outcome
from gale.core.plan import SetSlots, Write, after
from gale.core.state import ClusterState
from gale.core.view import View
from gale.errors import ConsensusError, DataplaneError
from gale.ports import ConsensusStatus, Counters, Explanation, Flow, FlowChoice, FlowCounts, Question, Reached


class MemoryFlows:
    """A list of flows; `unsettled`: nodes whose connections are becoming known."""

    def __init__(self) -> None:
        self.all: list[Flow] = []
        self.unsettled: set[int] = set()
        self.killed = 0

    async def some(self, choice: FlowChoice, most: int) -> tuple[list[Flow], bool]:
        found = [flow for flow in self.all if _is_meant(flow, choice)]
        return found[:most], len(found) > most

    async def count(self, choice: FlowChoice) -> FlowCounts:
        found = [flow for flow in self.all if _is_meant(flow, choice)]
        return Counter((flow.service, flow.protocol, flow.node, flow.state) for flow in found)

    def settled(self, node: int) -> bool:
        return node not in self.unsettled

    async def kill(self, choice: FlowChoice) -> int:
        before = len(self.all)
        self.all = [flow for flow in self.all if not _is_meant(flow, choice)]
        self.killed += before - len(self.all)
        return before - len(self.all)


def _is_meant(flow: Flow, choice: FlowChoice) -> bool:
    return (
        (choice.clients is None or ip_address(flow.client) in choice.clients)
        and choice.port in (0, flow.client_port)
        and choice.node in (None, flow.node)
        and choice.service in ("", flow.service)
        and choice.state in ("", flow.state)
    )


class MemoryDataplane:
    """Maps as a view, for these services. A write that would leave a slot without its node raises, as `after` does.

    counted       what `counters` gives
    explanations  what `explain` gives: question -> explanation; any other question is for no service
    differences   what the next `verify` finds, and mends
    farewells     the numbers that were given one, in order
    flows         those that it knows
    awaited       addresses of nodes that must have been heard before `attach`, if it is not to be too early
    """

    def __init__(self, services: Iterable[str] = ("default",)) -> None:
        self._services = set(services)
        self.view = View()
        self.writes: list[Write] = []
        self.attachments: dict[str, str] = {}
        self.refuse: Callable[[Write], bool] = lambda write: False
        self.counted = Counters()
        self.explanations: dict[Question, Explanation] = {}
        self.differences: tuple[str, ...] = ()
        self.farewells: list[int] = []
        self.awaited: set[str] = set()
        self.flows = MemoryFlows()

    def perform(self, write: Write) -> None:
        if self.refuse(write):
            raise DataplaneError(f"refused on request: {type(write).__name__}")
        if isinstance(write, SetSlots) and write.service not in self._services:
            raise DataplaneError(f"service {write.service!r} is not one of {', '.join(self._services)}")
        self.view = after(self.view, write)
        self.writes.append(write)

    def attach(self) -> None:
        self.attachments = {"public": "memory", "private": "memory"}

    def unprepared(self, heard: Container[str]) -> str:
        return "" if self.awaited <= {address for address in self.awaited if address in heard} else "nodes"

    def refresh_neighbours(self) -> tuple[object, ...]:
        return ()

    def verdicts(self) -> Mapping[str, int]:
        return self.counted.verdicts

    async def counters(self) -> Counters:
        return self.counted

    async def explain(self, question: Question) -> Explanation:
        return self.explanations.get(question, Explanation("no_service", "pass", "no service has this destination"))

    def verify(self) -> tuple[str, ...]:
        found, self.differences = self.differences, ()
        return found

    def reached(self, number: int) -> tuple[Reached, ...]:
        known = self.view.nodes.get(number)
        return (Reached(known.address, interface="memory", mtu=1500),) if known else ()

    def farewell(self, number: int) -> None:
        self.farewells.append(number)


class MemoryConsensus:
    """A cluster of one whose log is a list: what is proposed is committed at once, unless `quorum` is False."""

    def __init__(self, me: str) -> None:
        self.state = ClusterState()
        self.log: list[Proposal] = []
        self.ready = True
        self.quorum = True
        self.connected = frozenset({me})
        self.leader = me
        self._me = me
        self._epoch = next_epoch(self.state, me, wall_ms=0)

    def status(self) -> ConsensusStatus:
        leader = self.leader if self.quorum else None
        return ConsensusStatus(leader, 1, self.quorum, len(self.log), self.connected)

    async def propose(self, command: Command) -> Outcome:
        if not self.quorum:
            raise ConsensusError("not committed: there is no leader")
        proposal = Proposal(Origin(self._me, self._epoch, len(self.log) + 1), command)
        self.log.append(proposal)
        self.state, outcome = apply(self.state, proposal, len(self.log))
        return outcome

    async def hand_over(self, to: str = "") -> None:
        if self.leader == self._me:
            if not self.connected - {self._me}:
                raise ConsensusError("there is nobody to hand over to")
            self.leader = to or min(self.connected - {self._me})


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.now_ms = now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms
