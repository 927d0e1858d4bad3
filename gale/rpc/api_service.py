"""What gale-ctl calls. The load balancer that is asked asks the others, so one answer covers the cluster.

An order, and a question that wants a strong answer, go through the log: any load balancer takes them, and without a
quorum they end with ABORTED and the reason.
"""

import asyncio

import grpc

from gale.core.outcome import Rejected
from gale.errors import ConsensusError, RemoteError
from gale.ports import Operator
from gale.rpc.client import Server, fetch_local_status
from gale.rpc.status import cluster_status, local_status
from gale.rpc.v1 import api_pb2 as pb
from gale.rpc.v1 import api_pb2_grpc as services
from gale.tls import Credentials

ASK_OTHERS_S = 0.5


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
        others = [address for address in self._quorum if address != asked.address]
        answers = await asyncio.gather(*(self._ask(address) for address in others))
        return cluster_status(self._operator.state, asked, dict(zip(others, answers, strict=True)))

    async def SetDrain(self, request: pb.SetDrainRequest, context: grpc.aio.ServicerContext) -> pb.SetDrainResponse:
        try:
            outcome = await self._operator.drain(request.node, request.on)
        except ConsensusError as error:
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        if isinstance(outcome, Rejected):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, outcome.reason)
        node = self._operator.state.nodes[request.node]
        return pb.SetDrainResponse(phase=node.phase.value, drained=node.drained)

    async def _ask(self, address: str) -> pb.LocalStatus | str:
        known = self._operator.state.load_balancers.get(address)
        api = known.api if known else f"{address.rpartition(':')[0]}:{self._api_port}"
        try:
            return await fetch_local_status(Server(api, self._credentials), ASK_OTHERS_S)
        except RemoteError as error:
            return str(error)
