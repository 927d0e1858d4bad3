"""What gale-ctl calls. The load balancer that is asked asks the others, so one answer covers the cluster.

An order, and a question that wants a strong answer, go through the log: any load balancer takes them, and without a
quorum they end with ABORTED and the reason.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from gale.core.outcome import Rejected
from gale.errors import ConsensusError, DataplaneError, RemoteError
from gale.ports import Operator
from gale.rpc.answers import counters_to, explanation_to, question_from
from gale.rpc.client import Server, ask, fetch_local_status
from gale.rpc.status import cluster_status, local_status
from gale.rpc.v1 import api_pb2 as pb
from gale.rpc.v1 import api_pb2_grpc as services
from gale.tls import Credentials

ASK_OTHERS_S = 0.5
ASK_DATAPLANE_S = 2.0
ASK_EXPLAIN_S = 30.0
"""The first time, what explains has to be compiled."""

T = TypeVar("T")


class ManagementService(services.ManagementServiceServicer):
    """`quorum`: every load balancer's address; `api_port`: where one that never announced itself would answer;
    `credentials`: to ask the others with."""

    def __init__(
        self, operator: Operator, quorum: tuple[str, ...], api_port: int, credentials: Credentials | None = None
    ) -> None:
        self._operator = operator
        self._quorum = quorum
        self._api_port = api_port
        self._credentials = credentials

    async def GetLocalStatus(
        self, request: pb.GetLocalStatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.LocalStatus:
        return local_status(self._operator.local_status())

    async def GetClusterStatus(
        self, request: pb.GetClusterStatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.ClusterStatus:
        if request.strong:
            try:
                await self._operator.barrier()
            except ConsensusError as error:
                await context.abort(grpc.StatusCode.ABORTED, str(error))
        asked = local_status(self._operator.local_status())
        others = await self._others(lambda server: fetch_local_status(server, ASK_OTHERS_S))
        return await cluster_status(self._operator.state, asked, others)

    async def SetDrain(self, request: pb.SetDrainRequest, context: grpc.aio.ServicerContext) -> pb.SetDrainResponse:
        try:
            outcome = await self._operator.drain(request.node, request.on)
        except ConsensusError as error:
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        if isinstance(outcome, Rejected):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, outcome.reason)
        node = self._operator.state.nodes[request.node]
        return pb.SetDrainResponse(phase=node.phase.value, drained=node.drained)

    async def GetCounters(
        self, request: pb.GetCountersRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetCountersResponse:
        async def own(me: str) -> pb.Counters:
            now_ms = round(1_000 * asyncio.get_running_loop().time())
            return await counters_to(me, now_ms, await self._operator.counters(), self._operator.state)

        parts = await self._everywhere("GetCounters", request, own, pb.Counters)
        return pb.GetCountersResponse(load_balancers=parts)

    async def Explain(self, request: pb.ExplainRequest, context: grpc.aio.ServicerContext) -> pb.ExplainResponse:
        try:
            question = question_from(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        async def own(me: str) -> pb.Explanation:
            return explanation_to(me, *await self._operator.explain(question), self._operator.state)

        parts = await self._everywhere("Explain", request, own, pb.Explanation, ASK_EXPLAIN_S)
        return pb.ExplainResponse(load_balancers=parts)

    async def VerifyDataplane(
        self, request: pb.VerifyDataplaneRequest, context: grpc.aio.ServicerContext
    ) -> pb.VerifyDataplaneResponse:
        async def own(me: str) -> pb.Verification:
            return pb.Verification(address=me, differences=self._operator.verify())

        parts = await self._everywhere("VerifyDataplane", request, own, pb.Verification)
        return pb.VerifyDataplaneResponse(load_balancers=parts)

    async def _everywhere(
        self,
        method: str,
        request: Any,
        own: Callable[[str], Awaitable[T]],
        part: Callable[..., T],
        timeout_s: float = ASK_DATAPLANE_S,
    ) -> list[T]:
        """The part of each load balancer, by address: our own, and those that the others give for themselves."""
        me = self._operator.address

        async def ours() -> T:
            try:
                return await own(me)
            except DataplaneError as error:
                return part(address=me, error=str(error))

        if request.here:
            return [await ours()]
        asked = type(request)()
        asked.CopyFrom(request)
        asked.here = True

        async def theirs(server: Server) -> Any:
            if timeout_s > ASK_DATAPLANE_S:  # a machine that is off is not waited for so long
                await fetch_local_status(server, ASK_OTHERS_S)
            return await ask(server, method, asked, timeout_s)

        mine, answers = await asyncio.gather(ours(), self._others(theirs))
        parts = {me: mine}
        for address, answer in answers.items():
            if isinstance(answer, str):
                parts[address] = part(address=address, error=answer)
            else:
                parts.update((given.address, given) for given in answer.load_balancers)
        return [parts[address] for address in sorted(parts)]

    async def _others(self, fetch: Callable[[Server], Awaitable[T]]) -> dict[str, T | str]:
        """What the other load balancers answer, or why they do not."""

        async def one(address: str) -> T | str:
            known = self._operator.state.load_balancers.get(address)
            api = known.api if known else f"{address.rpartition(':')[0]}:{self._api_port}"
            try:
                return await fetch(Server(api, self._credentials))
            except RemoteError as error:
                return str(error)

        me = self._operator.address
        others = [address for address in self._quorum if address != me]
        return dict(zip(others, await asyncio.gather(*map(one, others)), strict=True))
