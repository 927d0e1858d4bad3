"""Questions about flows, and the order that ends some.

An end to flows changes nothing that is agreed on, so it needs no quorum: a load balancer whose cluster is in pieces can
be rid of them as well. Afterwards it is an event, if it can be; in any case it is a line of each load balancer's log,
and counted there.
"""

import ipaddress
from collections.abc import Callable

import grpc
import structlog

from gale.core.commands import Noted
from gale.core.state import ClusterState
from gale.ports import FlowChoice
from gale.rpc.everywhere import Everywhere
from gale.rpc.giving import given_in, noted
from gale.rpc.v1 import api_pb2 as pb

log = structlog.get_logger()

ASK_FLOWS_S = 25.0
"""A table of millions takes seconds."""
FLOWS_MOST = 10_000
"""Of one load balancer in one answer: about a megabyte."""
STATES = ("opening", "established", "ended")


class FlowQuestions(Everywhere):
    """Their part of ManagementService."""

    async def GetFlows(self, request: pb.GetFlowsRequest, context: grpc.aio.ServicerContext) -> pb.GetFlowsResponse:
        choice = await self._choice(request.choice, context)
        most = min(request.limit or FLOWS_MOST, FLOWS_MOST)

        async def own(me: str) -> pb.FlowsThere:
            flows, more = await self._operator.flows.some(choice, most)
            name = _names(self._operator.state)
            told = [
                pb.FlowThere(
                    client=flow.client,
                    client_port=flow.client_port,
                    protocol=flow.protocol,
                    service=flow.service,
                    destination=flow.address,
                    destination_port=flow.port,
                    node=name(flow.node),
                    source_port=flow.source_port,
                    state=flow.state,
                    quiet_s=flow.quiet_s,
                )
                for flow in flows
            ]
            return pb.FlowsThere(address=me, flows=told, more=more)

        parts = await self._everywhere("GetFlows", request, own, pb.FlowsThere, ASK_FLOWS_S)
        return pb.GetFlowsResponse(load_balancers=parts)

    async def CountFlows(
        self, request: pb.CountFlowsRequest, context: grpc.aio.ServicerContext
    ) -> pb.CountFlowsResponse:
        choice = await self._choice(request.choice, context)

        async def own(me: str) -> pb.FlowCounts:
            counted, name = await self._operator.flows.count(choice), _names(self._operator.state)
            told = [
                pb.FlowCount(service=service, protocol=protocol, node=name(node), state=state, flows=many)
                for (service, protocol, node, state), many in counted.items()
            ]
            return pb.FlowCounts(address=me, counts=told)

        parts = await self._everywhere("CountFlows", request, own, pb.FlowCounts, ASK_FLOWS_S)
        return pb.CountFlowsResponse(load_balancers=parts)

    async def KillFlows(self, request: pb.KillFlowsRequest, context: grpc.aio.ServicerContext) -> pb.KillFlowsResponse:
        choice = await self._choice(request.choice, context)
        given = given_in(context, request.why, self._operator.address, request.who if request.here else "")
        request.who = given.who
        said = {field.name: value for field, value in request.choice.ListFields()}

        async def own(me: str) -> pb.FlowsKilled:
            killed = await self._operator.flows.kill(choice)
            log.info("flows killed by order", flows=killed, who=given.who, why=given.why, **said)
            return pb.FlowsKilled(address=me, killed=killed)

        parts = await self._everywhere("KillFlows", request, own, pb.FlowsKilled, ASK_FLOWS_S)
        if not request.here and (killed := sum(part.killed for part in parts)):
            chosen = ", ".join(f"{name} {value}" for name, value in said.items()) or "all"
            await noted(
                self._operator, Noted(0, "flows", f"{killed} of {chosen}", "killed", "an operator ends them", given)
            )
        return pb.KillFlowsResponse(load_balancers=parts)

    async def _choice(self, asked: pb.FlowChoice, context: grpc.aio.ServicerContext) -> FlowChoice:
        try:
            return choice_from(asked, self._operator.state)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise


def choice_from(asked: pb.FlowChoice, state: ClusterState) -> FlowChoice:
    """Raises ValueError that says what is wrong."""
    clients, port = clients_from(asked.client)
    if asked.node and asked.node not in state.nodes:
        raise ValueError(f"no node is called {asked.node}")
    services = [service.name for service in state.shared.services]
    if asked.service and asked.service not in services:
        raise ValueError(f"no service is called {asked.service}: there are {', '.join(services) or 'none'}")
    if asked.state and asked.state not in STATES:
        raise ValueError(f"state {asked.state!r}: {' or '.join(STATES)} is allowed")
    node = state.nodes[asked.node].number if asked.node else None
    return FlowChoice(clients, port, node, asked.service, asked.state)


def clients_from(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network | None, int]:
    """The network, and the port; 0: any. Raises ValueError."""
    address, colon, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    try:
        if not text:
            return None, 0
        if colon and (bracketed or "." in address):
            if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65_535):
                raise ValueError
            return ipaddress.ip_network(str(ipaddress.ip_address(address[1:-1] if bracketed else address))), int(port)
        return ipaddress.ip_network(text), 0
    except ValueError:
        raise ValueError(
            f"client {text!r}: write e.g. 198.51.100.7, 198.51.100.0/24, 198.51.100.7:40000 or [2001:db8::7]:40000"
        ) from None


def _names(state: ClusterState) -> Callable[[int | None], str]:
    names: dict[int | None, str] = {node.number: name for name, node in state.nodes.items()}
    return lambda number: "" if number is None else names.get(number, f"#{number}")
