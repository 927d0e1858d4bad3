"""What nodes call. A node's address is where its connection comes from: it cannot speak for another machine.

Without certificates the name is what the node says it is; the state sees to it that one name has one address.
"""

import re
from collections.abc import AsyncIterator
from urllib.parse import unquote

import grpc

import gale
from gale.config.reading import NAME_PATTERN, SERVICES_MAX
from gale.core.state import NodeInfo
from gale.ports import NodeGate
from gale.rpc.v1 import node_pb2 as pb
from gale.rpc.v1 import node_pb2_grpc as services

NAME = re.compile(NAME_PATTERN)


class NodeService(services.NodeServiceServicer):
    def __init__(self, load_balancer: str, gate: NodeGate) -> None:
        self._load_balancer = load_balancer
        self._gate = gate

    async def GetConfig(self, request: pb.GetConfigRequest, context: grpc.aio.ServicerContext) -> pb.GetConfigResponse:
        policy = self._gate.policy()
        return pb.GetConfigResponse(
            version=gale.__version__,
            load_balancer=self._load_balancer,
            interval_ms=policy.checks_timeout_ms // 3,
            checks_timeout_ms=policy.checks_timeout_ms,
            checks_before_routing=policy.checks_before_routing,
        )

    async def Checks(
        self, requests: AsyncIterator[pb.Check], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.CheckReply]:
        address = peer_address(context.peer())
        async for check in requests:
            try:
                info = node_info(check, address)
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            if check.condition == pb.CONDITION_GOODBYE:
                standing = await self._gate.goodbye(info)
                yield pb.CheckReply(phase=standing.phase, refusal=standing.refusal)
                return
            standing = self._gate.check(info, serving=check.condition == pb.CONDITION_SERVING)
            yield pb.CheckReply(phase=standing.phase, refusal=standing.refusal)


def peer_address(peer: str) -> str:
    """The IPv4 address in grpc's name of a peer, "ipv4:ADDRESS:PORT"; empty when it is something else."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0] if kind == "ipv4" else ""


def node_info(check: pb.Check, address: str) -> NodeInfo:
    """A node's own words, checked for form. Raises ValueError that says what is wrong."""
    if not NAME.fullmatch(check.node):
        raise ValueError(
            f"node name {check.node[:64]!r}: 1 to 64 letters, digits, dots, dashes and underscores are allowed"
        )
    if not 1 <= check.weight <= 1_000:
        raise ValueError(f"weight {check.weight}: 1 to 1000 is allowed")
    if not 1 <= check.reports_to <= 7:
        raise ValueError(f"reports_to {check.reports_to}: 1 to 7 load balancers are allowed")
    if len(check.services) > SERVICES_MAX or not all(NAME.fullmatch(service) for service in check.services):
        raise ValueError(
            f"services: at most {SERVICES_MAX} names of letters, digits, dots, dashes and underscores are allowed"
        )
    if check.condition not in (pb.CONDITION_SERVING, pb.CONDITION_NOT_SERVING, pb.CONDITION_GOODBYE):
        raise ValueError(f"condition {check.condition}: SERVING, NOT_SERVING or GOODBYE is allowed")
    if not address:
        raise ValueError("checks are taken over IPv4 only")
    return NodeInfo(check.node, address, check.weight, tuple(check.services), check.reports_to)
