"""A directory of certificates for tests, and a gRPC port that asks for them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc

from gale.core.shared import HealthPolicy
from gale.core.state import NodeInfo
from gale.pki import issue, make_ca, write
from gale.ports import Standing
from gale.rpc.limits import API_LIMITS, Limits
from gale.rpc.node_service import NodeService
from gale.rpc.server import listen
from gale.rpc.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from gale.tls import Credentials, Identity, Role
from tests.raft.trio import free_addresses


class Folder:
    """An authority and what it issued; credentials look at their files whenever they are asked."""

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.ca = make_ca(datetime.now(UTC))
        write(path, "ca", self.ca)

    def issue(self, role: Role, name: str, *, age_days: int = 0) -> Credentials:
        """Raises HostError when they are too old to be used."""
        now = datetime.now(UTC) - timedelta(days=age_days)
        write(self.path, name, issue(self.ca, Identity(role, name), now))
        return self.credentials(name)

    def credentials(self, stem: str) -> Credentials:
        return Credentials(self.path / "ca.crt", self.path / f"{stem}.crt", self.path / f"{stem}.key", look_again_s=0)

    def load_balancer(self) -> Credentials:
        return self.issue(Role.LOAD_BALANCER, "127.0.0.1")


class Gate:
    """Takes every check, and remembers of whom."""

    def __init__(self) -> None:
        self.checks: dict[str, int] = {}

    def policy(self) -> HealthPolicy:
        return HealthPolicy(3, 1_000)

    def check(self, info: NodeInfo, serving: bool, reason: str = "") -> Standing:
        self.checks[info.id] = self.checks.get(info.id, 0) + 1
        return Standing("routing")

    async def goodbye(self, info: NodeInfo) -> Standing:
        return Standing("left")


@asynccontextmanager
async def serving(
    credentials: Credentials | None,
    *handlers: grpc.GenericRpcHandler,
    gate: Gate | None = None,
    limits: Limits = API_LIMITS,
) -> AsyncIterator[str]:
    """A port as gale-lb opens it; yields its address."""
    (address,) = free_addresses(1)
    server = await listen([address], limits, credentials)
    server.add_generic_rpc_handlers(handlers)
    if gate:
        add_NodeServiceServicer_to_server(NodeService("127.0.0.1:9090", gate), server)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)


def echo(service: str, methods: Sequence[str]) -> grpc.GenericRpcHandler:
    """A service whose methods answer what they are asked, as bytes."""

    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return request

    handlers = {method: grpc.unary_unary_rpc_method_handler(answer) for method in methods}
    return grpc.method_handlers_generic_handler(service, handlers)
