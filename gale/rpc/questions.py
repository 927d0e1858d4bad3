"""Questions about services, nodes and configurations."""

import grpc

from gale.rpc.answers import traffic_to
from gale.rpc.flows import FlowQuestions
from gale.rpc.shares import services_to, shares_of
from gale.rpc.status import node_status
from gale.rpc.v1 import api_pb2 as pb


class Questions(FlowQuestions):
    """Their part of ManagementService."""

    async def GetServices(
        self, request: pb.GetServicesRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetServicesResponse:
        state = self._operator.state
        services = await services_to(state, request.name)
        if request.name and not services:
            known = ", ".join(service.name for service in state.shared.services) or "none is known yet"
            reason = f"no service is called {request.name}: there are {known}"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason)
        return pb.GetServicesResponse(services=services)

    async def GetNode(self, request: pb.GetNodeRequest, context: grpc.aio.ServicerContext) -> pb.GetNodeResponse:
        state = self._operator.state
        node = state.nodes.get(request.name)

        async def own(me: str) -> pb.NodeAtLoadBalancer:
            local = self._operator.local_status()
            part = pb.NodeAtLoadBalancer(
                address=me,
                taken_away=request.name in local.degraded,
                reached=[
                    pb.Reached(
                        address=way.address,
                        trouble=way.trouble,
                        interface=way.interface,
                        mac=way.mac,
                        router=way.router,
                        vlan=way.vlan,
                        mtu=way.mtu,
                    )
                    for way in self._operator.reached(request.name)
                ],
            )
            if node:
                traffic = (await self._operator.counters()).nodes.get(node.number)
                part.traffic.CopyFrom(traffic_to(traffic) if traffic else pb.Traffic())
            return part

        if node is None and not request.here:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"no node is called {request.name}")
        parts = await self._everywhere("GetNode", request, own, pb.NodeAtLoadBalancer)
        if node is None:
            return pb.GetNodeResponse(load_balancers=parts)
        not_serving = self._operator.local_status().not_serving.get(request.name, "")
        return pb.GetNodeResponse(
            node=node_status(node, state, not_serving), shares=await shares_of(state, node), load_balancers=parts
        )

    async def GetConfiguration(
        self, request: pb.GetConfigurationRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetConfigurationResponse:
        async def own(me: str) -> pb.Configuration:
            told = self._in_force()
            return pb.Configuration(
                address=me,
                shared=told.shared,
                hash=told.hash,
                own=told.own,
                warnings=told.warnings,
                serves={service: pb.Places(places=places) for service, places in told.serves.items()},
                machine=told.machine,
            )

        parts = await self._everywhere("GetConfiguration", request, own, pb.Configuration)
        return pb.GetConfigurationResponse(load_balancers=parts)
