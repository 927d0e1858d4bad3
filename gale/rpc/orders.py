"""What operators order, and what came of it: the part of the management API that changes something, and the events.

Any load balancer takes an order: it goes through the log, and who gave it stands there with it (giving.py).
"""

import asyncio
from datetime import UTC, datetime

import grpc

from gale.config.reading import is_name
from gale.core import commands as c
from gale.core.orders import BAN_MAX_MS, WEIGHT_MAX
from gale.core.outcome import Rejected
from gale.core.state import Node, Transition
from gale.errors import ConsensusError, RemoteError
from gale.rpc.client import Server, ask
from gale.rpc.everywhere import Everywhere
from gale.rpc.giving import given_in, noted
from gale.rpc.status import node_status
from gale.rpc.steps import in_steps
from gale.rpc.v1 import api_pb2 as pb

HAND_OVER_S = 3.0
LOOK_S = 0.02


class Orders(Everywhere):
    """Their part of ManagementService."""

    async def SetDrain(self, request: pb.SetDrainRequest, context: grpc.aio.ServicerContext) -> pb.SetDrainResponse:
        given = self._given(request.why, context)
        node = await self._order(c.Drain(0, request.node, request.on, given), context)
        return pb.SetDrainResponse(phase=node.phase.value, drained=node.drained)

    async def GetDraining(
        self, request: pb.GetDrainingRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetDrainingResponse:
        if request.node not in self._operator.state.nodes and not request.here:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"no node is called {request.node[:64]}")

        async def own(me: str) -> pb.Draining:
            node = self._operator.state.nodes.get(request.node)
            phase = node.phase.value if node else "unknown"
            return pb.Draining(address=me, phase=phase, flows=self._operator.flows_left(request.node))

        parts = await self._everywhere("GetDraining", request, own, pb.Draining)
        return pb.GetDrainingResponse(load_balancers=parts)

    async def SetBan(self, request: pb.SetBanRequest, context: grpc.aio.ServicerContext) -> pb.NodeStatus:
        given = self._given(request.why, context)
        if request.for_ms > BAN_MAX_MS:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a ban lasts a year at most, or until it is lifted")
        order = c.Ban(0, request.node, request.for_ms, given) if request.on else c.Unban(0, request.node, given)
        return node_status(await self._order(order, context), self._operator.state)

    async def SetWeight(self, request: pb.SetWeightRequest, context: grpc.aio.ServicerContext) -> pb.NodeStatus:
        if request.weight > WEIGHT_MAX:
            reason = f"weight {request.weight}: 1 to {WEIGHT_MAX} is allowed, or 0 for the node's own"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
        order = c.SetWeight(0, request.node, request.weight, self._given(request.why, context))
        return node_status(await self._order(order, context), self._operator.state)

    async def HandOver(self, request: pb.HandOverRequest, context: grpc.aio.ServicerContext) -> pb.HandOverResponse:
        to = await self._member(request.to, context)
        before = self._leader()
        if not before:
            await context.abort(grpc.StatusCode.ABORTED, "there is no leader")
        if to == before:
            return pb.HandOverResponse(leader=before)
        order = c.HandOver(0, to, self._given(request.why, context))
        if not request.here:
            await self._commit(order, context)
        try:
            await self._hand_over(before, to, request.here)
        except (ConsensusError, RemoteError) as error:
            if not request.here:
                words = "leader", f"to be {to or 'another one'}", before, f"it was not handed over: {error}"
                await noted(self._operator, c.Noted(0, *words, c.Given(order.given.who)))
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        end_s = asyncio.get_running_loop().time() + HAND_OVER_S
        while (now := self._leader()) in ("", before):
            if asyncio.get_running_loop().time() > end_s:
                await context.abort(grpc.StatusCode.ABORTED, f"{before} was told to end, and nobody leads after it")
            await asyncio.sleep(LOOK_S)
        return pb.HandOverResponse(leader=now)

    async def _hand_over(self, leader: str, to: str, here: bool) -> None:
        """Raises ConsensusError or RemoteError."""
        if leader == self._operator.address:
            await self._operator.hand_over(to)
        elif here:
            raise ConsensusError(f"{self._operator.address} leads no more: try again")
        elif known := self._operator.state.load_balancers.get(leader):
            request = pb.HandOverRequest(to=to, here=True)
            await ask(Server(known.api, self._credentials), "HandOver", request, HAND_OVER_S)
        else:
            raise ConsensusError(f"the leader, {leader}, has not announced itself yet")

    def _leader(self) -> str:
        return self._operator.local_status().consensus.leader or ""

    async def GetEvents(self, request: pb.GetEventsRequest, context: grpc.aio.ServicerContext) -> pb.GetEventsResponse:
        found = [each for each in self._operator.state.transitions if each.sequence > request.after]
        return pb.GetEventsResponse(events=[_event(each) async for each in in_steps(found[-request.most :])])

    async def _order(self, order: c.NodeOrder, context: grpc.aio.ServicerContext) -> Node:
        """The node that it is about, when it is committed."""
        if not is_name(order.node):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{order.node[:64]!r} is no name of a node")
        await self._commit(order, context)
        return self._operator.state.nodes[order.node]

    async def _commit(self, order: c.Order, context: grpc.aio.ServicerContext) -> None:
        try:
            outcome = await self._operator.order(order)
        except ConsensusError as error:
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        if isinstance(outcome, Rejected):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, outcome.reason)

    async def _member(self, text: str, context: grpc.aio.ServicerContext) -> str:
        found = [address for address in self._quorum if text in (address, address.rpartition(":")[0])]
        if text and len(found) != 1:
            reason = f"{text[:64]!r} is no load balancer: there are {', '.join(self._quorum)}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
        return found[0] if text else ""

    def _given(self, why: str, context: grpc.aio.ServicerContext) -> c.Given:
        return given_in(context, why, self._operator.address)


def _event(transition: Transition) -> pb.Event:
    time = datetime.fromtimestamp(transition.time_ms / 1000, UTC)
    return pb.Event(
        sequence=transition.sequence,
        index=transition.index,
        time=time.isoformat(timespec="milliseconds"),
        subject=transition.subject,
        before=transition.before,
        after=transition.after,
        cause=transition.cause,
        who=transition.who,
    )
