"""Who may call what, by the certificate of the connection; and how much at once, with and without certificates.

The handshake has shown that the caller's certificate is under our authority. What is decided here is what its role
allows: a node checks in, everybody may ask, and orders are for operators and load balancers. Who clients are is no
business of nodes. A method that is not
listed is an order, so that what is added is closed until somebody opens it. Without [tls] everybody may do everything:
then the private network is the boundary.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gale.log import Refusals
from gale.rpc.arrivals import Arrivals
from gale.rpc.limits import Limits, Sources
from gale.tls import Identity, Role, identity

EVERYBODY = frozenset(Role)
ORDERS = frozenset({Role.OPERATOR, Role.LOAD_BALANCER})
NODES = frozenset({Role.NODE})
NOT_NODES = EVERYBODY - NODES
ALLOWED: Mapping[str, frozenset[Role]] = {
    "/gale.v1.NodeService/GetConfig": NODES,
    "/gale.v1.NodeService/Checks": NODES,
    "/gale.v1.ManagementService/GetClusterStatus": EVERYBODY,
    "/gale.v1.ManagementService/GetLocalStatus": EVERYBODY,
    "/gale.v1.ManagementService/GetCounters": EVERYBODY,
    "/gale.v1.ManagementService/GetFlows": NOT_NODES,
    "/gale.v1.ManagementService/CountFlows": NOT_NODES,
    "/gale.v1.ManagementService/GetServices": EVERYBODY,
    "/gale.v1.ManagementService/GetNode": EVERYBODY,
    "/gale.v1.ManagementService/GetConfiguration": EVERYBODY,
    "/gale.v1.ManagementService/GetEvents": EVERYBODY,
    "/gale.v1.ManagementService/GetDraining": EVERYBODY,
}

REFUSED_AFTER_S = 0.5
MAKE = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def caller(context: grpc.aio.ServicerContext) -> Identity | None:
    """Whom the caller's certificate names; None where there is no TLS. Raises ValueError when it is not of gale."""
    shown = context.auth_context().get("x509_pem_cert")
    return _identity(shown[0]) if shown else None


@lru_cache(maxsize=1024)
def _identity(pem: bytes) -> Identity:
    return identity(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))


def peer_address(peer: str) -> str:
    """The IPv4 address in grpc's name of a peer, "ipv4:ADDRESS:PORT"; empty when it is something else."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0] if kind == "ipv4" else ""


class Doorkeeper(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Stands before every call of one server. `arrivals` where there is TLS: then a caller's role must allow the
    method."""

    def __init__(self, limits: Limits, arrivals: Arrivals | None, refusals: Refusals) -> None:
        self._sources = Sources(limits)
        self._arrivals = arrivals
        self._refusals = refusals
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """One handler for all calls of a method: ten thousand nodes call the same one."""
        if details.method not in self._handlers:
            handler = await continuation(details)
            if handler is None:
                return None
            self._handlers[details.method] = self._admitting(details.method, handler)
        return self._handlers[details.method]

    def _admitting(self, method: str, handler: Any) -> Any:
        kind = (handler.request_streaming, handler.response_streaming)
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def admitted(request: Any, context: grpc.aio.ServicerContext) -> Any:
            source = await self._admit(method, context)
            try:
                return await behaviour(request, context)
            finally:
                self._sources.leave(source)

        return MAKE[kind](admitted, handler.request_deserializer, handler.response_serializer)

    async def _admit(self, method: str, context: grpc.aio.ServicerContext) -> str:
        """Returns, when it is the call's turn, the source that has to leave in the end. Aborts what may not be."""
        source = peer_address(context.peer())
        if self._arrivals:
            self._arrivals.called(context.peer())
            if reason := _forbidden(method, context):
                await self._refuse(context, grpc.StatusCode.PERMISSION_DENIED, source, reason)
        try:
            delay_s = self._sources.enter(source, asyncio.get_running_loop().time())
        except ValueError as error:
            await self._refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, source, str(error))
        try:
            if delay_s:
                await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            self._sources.leave(source)
            raise
        return source

    async def _refuse(self, context: grpc.aio.ServicerContext, code: grpc.StatusCode, source: str, reason: str) -> None:
        self._refusals.note(event="call refused", source=source, reason=reason)
        await asyncio.sleep(REFUSED_AFTER_S)  # who asks again at once must not be quicker than who is let in
        await context.abort(code, reason)


def _forbidden(method: str, context: grpc.aio.ServicerContext) -> str:
    """Why the caller may not; empty when it may."""
    if context.auth_context().get("ssl_tls_version") != [b"TLSv1.3"]:
        return "TLS 1.3 only"
    try:
        who = caller(context)
    except ValueError as error:
        return str(error)
    allowed = ALLOWED.get(method, ORDERS)
    if who is None or who.role not in allowed:
        return f"{method.rpartition('/')[2]} is not for {who}: it takes a certificate of {' or '.join(sorted(allowed))}"
    return ""
