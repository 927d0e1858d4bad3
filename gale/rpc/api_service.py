"""What gale-ctl calls. The load balancer that is asked asks the others, so one answer covers the cluster.

An order, and a question that wants a strong answer, go through the log: any load balancer takes them, and without a
quorum they end with ABORTED and the reason.
"""

import asyncio

import grpc

from gale.errors import ConsensusError
from gale.rpc.answers import counters_to, explanation_to, question_from
from gale.rpc.client import fetch_local_status
from gale.rpc.everywhere import ASK_OTHERS_S
from gale.rpc.orders import Orders
from gale.rpc.questions import Questions
from gale.rpc.status import cluster_status, local_status
from gale.rpc.v1 import api_pb2 as pb
from gale.rpc.v1 import api_pb2_grpc as services

ASK_EXPLAIN_S = 30.0
"""The first time, what explains has to be compiled."""


class ManagementService(Questions, Orders, services.ManagementServiceServicer):
    """The status and the data plane; the other questions are in questions.py, orders in orders.py."""

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
