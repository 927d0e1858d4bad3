"""Calling gale over gRPC: gale-ctl and the lab ask for status, gale-node sends its checks.

One function, `_as_remote_error`, turns grpc's failures into one line for an operator.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from gale.errors import NoAnswerError, RemoteError
from gale.rpc.plain import plain
from gale.rpc.v1 import api_pb2, api_pb2_grpc, node_pb2, node_pb2_grpc
from gale.tls import Credentials

# A closed network must not send our calls through a proxy, and a dead peer must be redialled soon.
CHANNEL = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
USER = "gale-user"
"""The metadata in which gale-ctl says whose it is."""


@dataclass(frozen=True, slots=True)
class Server:
    """Whom to call, "HOST:PORT", and how to prove who we are. With credentials the server must prove to be what the
    address names as well; without, nothing is proved and everything can be read on the way. "unix:PATH" is a socket on
    this machine, where there is no way and nothing to prove. `user`: who we say we are where nothing is proved."""

    address: str
    credentials: Credentials | None = None
    user: str = ""

    def __str__(self) -> str:
        return self.address


async def fetch_local_status(server: Server, timeout_s: float) -> api_pb2.LocalStatus:
    """Raises RemoteError."""
    answer: api_pb2.LocalStatus = await ask(server, "GetLocalStatus", api_pb2.GetLocalStatusRequest(), timeout_s)
    return answer


async def ask(server: Server, method: str, request: Message, timeout_s: float) -> Any:
    """One call of the management API, on a connection of its own. Raises RemoteError."""
    async with operator_link(server) as link:
        return await link.ask(method, request, timeout_s)


class OperatorLink:
    """One connection to a load balancer's API, for many questions and orders."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self._server = server
        self._stub = api_pb2_grpc.ManagementServiceStub(channel)

    async def ask(self, method: str, request: Message, timeout_s: float) -> Any:
        """Any call of the management API. Raises RemoteError."""
        try:
            said = ((USER, self._server.user),) if self._server.user else None
            return await getattr(self._stub, method)(request, timeout=timeout_s, metadata=said)
        except grpc.aio.AioRpcError as error:
            raise _as_remote_error(self._server, error) from error

    async def cluster_status(self, timeout_s: float, strong: bool = False) -> dict[str, Any]:
        """The cluster's status as plain values, in the JSON form that `gale-ctl cluster status -o json` prints.
        `strong`: only as of now, through the log."""
        answer = await self.ask("GetClusterStatus", api_pb2.GetClusterStatusRequest(strong=strong), timeout_s)
        return plain(answer)

    async def set_drain(self, node: str, on: bool, timeout_s: float) -> api_pb2.SetDrainResponse:
        """Returns when it is committed. Raises RemoteError, also when it is refused."""
        request = api_pb2.SetDrainRequest(node=node, on=on)
        answer: api_pb2.SetDrainResponse = await self.ask("SetDrain", request, timeout_s)
        return answer


@asynccontextmanager
async def operator_link(server: Server) -> AsyncIterator[OperatorLink]:
    async with _channel(server) as channel:
        yield OperatorLink(server, channel)


async def fetch_cluster_status(server: Server, timeout_s: float, strong: bool = False) -> dict[str, Any]:
    """As OperatorLink.cluster_status, on a connection of its own."""
    async with operator_link(server) as link:
        return await link.cluster_status(timeout_s, strong)


async def set_drain(server: Server, node: str, on: bool, timeout_s: float) -> api_pb2.SetDrainResponse:
    """As OperatorLink.set_drain, on a connection of its own."""
    async with operator_link(server) as link:
        return await link.set_drain(node, on, timeout_s)


class NodeLink:
    """One load balancer as a node talks to it."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self._server = server
        self._stub = node_pb2_grpc.NodeServiceStub(channel)

    async def get_config(self, version: str, timeout_s: float) -> node_pb2.GetConfigResponse:
        try:
            request = node_pb2.GetConfigRequest(version=version)
            answer: node_pb2.GetConfigResponse = await self._stub.GetConfig(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _as_remote_error(self._server, error) from error
        return answer

    async def checks(self, checks: AsyncIterator[node_pb2.Check]) -> AsyncIterator[node_pb2.CheckReply]:
        """Send checks as they come; yields the replies. Ends when the load balancer ends the stream."""
        try:
            async for reply in self._stub.Checks(checks):
                yield reply
        except grpc.aio.AioRpcError as error:
            raise _as_remote_error(self._server, error) from error


@asynccontextmanager
async def node_link(server: Server) -> AsyncIterator[NodeLink]:
    async with _channel(server) as channel:
        yield NodeLink(server, channel)


def _channel(server: Server) -> grpc.aio.Channel:
    if server.credentials is None or server.address.startswith("unix:"):
        return grpc.aio.insecure_channel(server.address, options=CHANNEL)
    ca, cert, key = server.credentials.pem()
    proof = grpc.ssl_channel_credentials(ca, key, cert)
    return grpc.aio.secure_channel(server.address, proof, options=CHANNEL)


def _as_remote_error(server: Server, error: grpc.aio.AioRpcError) -> RemoteError:
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return NoAnswerError(f"{server}: {_why_unavailable(error.details() or '')}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return NoAnswerError(f"{server}: no answer in time: is that machine up, and the port let through?")
        case grpc.StatusCode.UNIMPLEMENTED:
            return RemoteError(f"{server}: it does not know the question: is that the api_port, and of our version?")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.RESOURCE_EXHAUSTED:
            return RemoteError(f"{server}: refused: {error.details()}")
        case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.ABORTED:
            return RemoteError(f"{server}: {error.details()}")
        case code:
            return RemoteError(f"{server}: {code.name.lower()}: {error.details()}")


def _why_unavailable(details: str) -> str:
    """grpc's words for every way not to get through, in an operator's."""
    if re.search("CERTIFICATE_VERIFY_FAILED|Verification Check failed", details):
        return "refused by us: its certificate is not a load balancer's for this address, under our ca"
    if "Permission denied" in details:
        return "not permitted: be root, or in the group gale"
    if "resolving" in details:
        return "no address is known for that name"
    if re.search("No route to host|unreachable|timed out", details):
        return "no way there: is that machine up, and the port let through?"
    if "handshake failed" in details:
        return "no TLS: has the gale-lb there a [tls]?"
    if re.search("Socket closed|reset by peer", details):
        return "it closes the connection: with [tls] a gale-lb takes a certificate of its own ca only"
    return "no connection: is gale-lb running there?"
