"""Calling gale over gRPC: gale-ctl and the lab ask for status, gale-node sends its checks.

One function, `_as_remote_error`, turns grpc's failures into one line for an operator.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from gale.errors import RemoteError
from gale.rpc.v1 import api_pb2, api_pb2_grpc, node_pb2, node_pb2_grpc

# A closed network must not send our calls through a proxy, and a dead peer must be redialled soon.
CHANNEL = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


async def fetch_local_status(server: str, timeout_s: float) -> api_pb2.LocalStatus:
    """`server`: "HOST:PORT" of an API. Raises RemoteError."""
    async with _channel(server) as channel:
        stub = api_pb2_grpc.ManagementServiceStub(channel)
        try:
            answer: api_pb2.LocalStatus = await stub.GetLocalStatus(api_pb2.GetLocalStatusRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _as_remote_error(server, error) from error
        return answer


async def fetch_cluster_status(server: str, timeout_s: float, strong: bool = False) -> dict[str, Any]:
    """The cluster's status as plain values, in the JSON form that `gale-ctl cluster status -o json` prints. `strong`:
    only as of now, through the log."""
    async with _channel(server) as channel:
        stub = api_pb2_grpc.ManagementServiceStub(channel)
        try:
            answer = await stub.GetClusterStatus(api_pb2.GetClusterStatusRequest(strong=strong), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _as_remote_error(server, error) from error
    status = MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    status.setdefault("leader", None)
    for node in status["nodes"]:
        node.setdefault("banned_until", None)
        node["checks"] = dict(sorted(node["checks"].items()))
    return status


async def set_drain(server: str, node: str, on: bool, timeout_s: float) -> api_pb2.SetDrainResponse:
    """Returns when it is committed. Raises RemoteError, also when it is refused."""
    async with _channel(server) as channel:
        stub = api_pb2_grpc.ManagementServiceStub(channel)
        try:
            request = api_pb2.SetDrainRequest(node=node, on=on)
            answer: api_pb2.SetDrainResponse = await stub.SetDrain(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _as_remote_error(server, error) from error
        return answer


class NodeLink:
    """One load balancer as a node talks to it."""

    def __init__(self, server: str, channel: grpc.aio.Channel) -> None:
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
async def node_link(server: str) -> AsyncIterator[NodeLink]:
    async with _channel(server) as channel:
        yield NodeLink(server, channel)


def _channel(server: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(server, options=CHANNEL)


def _as_remote_error(server: str, error: grpc.aio.AioRpcError) -> RemoteError:
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return RemoteError(f"{server}: no connection: is gale-lb running there?")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return RemoteError(f"{server}: no answer in time")
        case grpc.StatusCode.UNIMPLEMENTED:
            return RemoteError(f"{server}: something else answers there: is that the api_port, and gale-lb's?")
        case grpc.StatusCode.INVALID_ARGUMENT:
            return RemoteError(f"{server}: refused: {error.details()}")
        case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.ABORTED:
            return RemoteError(f"{server}: {error.details()}")
        case code:
            return RemoteError(f"{server}: {code.name.lower()}: {error.details()}")
