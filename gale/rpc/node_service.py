"""What nodes call. A node's address is where its connection comes from: it cannot speak for another machine.

With certificates its name is its certificate's. Without, the name is what the node says it is; the state sees to it
that one name has one address.

A node learns how often to check in when it begins. When that has changed its stream ends, so that it asks again.

A stream that is too fast is read more slowly, which in the end holds back the sender.

An answer costs a third of what a check costs, so a node asks for one in a checks_timeout; what a node says of itself is
looked at when it says something else than before.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Protocol

import grpc

import gale
from gale.config.node import own_address6
from gale.config.reading import SERVICES_MAX, is_name
from gale.core.state import NodeInfo
from gale.ports import NodeGate, Standing
from gale.rpc.auth import caller, peer_address
from gale.rpc.limits import CHECKS_BURST, CHECKS_PER_S, Pace
from gale.rpc.v1 import node_pb2 as pb
from gale.rpc.v1 import node_pb2_grpc as services
from gale.tls import Identity

REASON_MAX = 200


class Listening(Protocol):
    """What a node is told of a listener of this load balancer; gale.dataplane.settings.Listener is one."""

    @property
    def service(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def protocol(self) -> str: ...
    @property
    def target_port(self) -> int: ...
    @property
    def mode(self) -> str: ...
    @property
    def tunnel(self) -> int: ...


class NodeService(services.NodeServiceServicer):
    """`listeners`: all of this load balancer; `addresses`: its own on the private side, of both IP versions."""

    def __init__(
        self, load_balancer: str, gate: NodeGate, listeners: Iterable[Listening] = (), addresses: Collection[str] = ()
    ) -> None:
        self._load_balancer = load_balancer
        self._gate = gate
        self._services = resolved_services(listeners)
        self._addresses = addresses

    async def GetConfig(self, request: pb.GetConfigRequest, context: grpc.aio.ServicerContext) -> pb.GetConfigResponse:
        policy = self._gate.policy()
        return pb.GetConfigResponse(
            version=gale.__version__,
            load_balancer=self._load_balancer,
            interval_ms=policy.checks_timeout_ms // 3,
            checks_timeout_ms=policy.checks_timeout_ms,
            checks_before_routing=policy.checks_before_routing,
            services=self._services,
            addresses=self._addresses,
        )

    async def Checks(self, _: AsyncIterator[pb.Check], context: grpc.aio.ServicerContext) -> None:
        """Checks are read and answered one by one: generators would cost more than a kilobyte for each node."""
        address, who, pace = peer_address(context.peer()), caller(context), Pace(CHECKS_PER_S, CHECKS_BURST)
        timeout_ms = self._gate.policy().checks_timeout_ms
        told, info, answered = pb.Check(), None, None
        while (check := await context.read()) is not grpc.aio.EOF:
            if delay_s := pace.delay_s(asyncio.get_running_loop().time()):
                await asyncio.sleep(delay_s)
            quiet, check.quiet = check.quiet, False
            if info is None or check != told:
                told, info = check, await _believed(check, address, who, context)
            if check.condition == pb.CONDITION_GOODBYE:
                await context.write(_reply(await self._gate.goodbye(info)))
                return
            standing = self._gate.check(info, check.condition == pb.CONDITION_SERVING, one_line(check.reason))
            if not quiet or standing != answered:
                await context.write(_reply(standing))
                answered = standing
            if self._gate.policy().checks_timeout_ms != timeout_ms:
                return  # the node asks again how to check in


async def _believed(check: pb.Check, address: str, who: Identity | None, context: grpc.aio.ServicerContext) -> NodeInfo:
    """What a node says of itself, if it may: else its stream ends with the reason."""
    if who and who.name != check.node:
        reason = f"node name {check.node[:64]!r}: the certificate is for {who}, which speaks for itself only"
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
    try:
        return node_info(check, address)
    except ValueError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise  # not reached: who aborts is gone


def _reply(standing: Standing) -> pb.CheckReply:
    return pb.CheckReply(phase=standing.phase, refusal=standing.refusal, lacks=standing.lacks, flows=standing.flows)


def one_line(text: str) -> str:
    """A stranger's words, as they may stand in the log and before operators."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:REASON_MAX])


def resolved_services(listeners: Iterable[Listening]) -> list[pb.ResolvedService]:
    """The listeners, one entry a service and mode: they differ in address and protocol only."""
    found: dict[tuple[str, str], pb.ResolvedService] = {}
    for listener in listeners:
        service = found.setdefault(
            (listener.service, listener.mode),
            pb.ResolvedService(
                name=listener.service,
                port=listener.port,
                target_port=listener.target_port,
                mode=listener.mode,
                tunnel=f"ipv{listener.tunnel}",
            ),
        )
        for value, values in ((listener.address, service.addresses), (listener.protocol, service.protocols)):
            if value not in values:
                values.append(value)
    return list(found.values())


def node_info(check: pb.Check, address: str) -> NodeInfo:
    """A node's own words, checked for form. Raises ValueError that says what is wrong."""
    if not is_name(check.node):
        raise ValueError(
            f"node name {check.node[:64]!r}: 1 to 64 letters, digits, dots, dashes and underscores are allowed"
        )
    if not 1 <= check.weight <= 1_000:
        raise ValueError(f"weight {check.weight}: 1 to 1000 is allowed")
    if not 1 <= check.reports_to <= 7:
        raise ValueError(f"reports_to {check.reports_to}: 1 to 7 load balancers are allowed")
    if len(check.services) > SERVICES_MAX or not all(map(is_name, check.services)):
        raise ValueError(
            f"services: at most {SERVICES_MAX} names of letters, digits, dots, dashes and underscores are allowed"
        )
    if check.condition not in (pb.CONDITION_SERVING, pb.CONDITION_NOT_SERVING, pb.CONDITION_GOODBYE):
        raise ValueError(f"condition {check.condition}: SERVING, NOT_SERVING or GOODBYE is allowed")
    if not address:
        raise ValueError("checks are taken over IPv4 only")
    services, address6 = tuple(check.services), _address6(check.address6)
    return NodeInfo(check.node, address, check.weight, services, check.reports_to, address6, check.leaving)


def _address6(text: str) -> str:
    """In the one form that addresses are compared in; empty stays empty. Raises ValueError."""
    if not text:
        return ""
    try:
        return own_address6(text)
    except ValueError as error:
        raise ValueError(f"address6 {text[:64]!r}: {error}") from None
