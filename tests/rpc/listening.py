"""gale-lb's port for nodes and nothing else, as a process: python -m tests.rpc.listening.

Says its port first; then, for each line that it reads, how many bytes of it are resident.
"""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from gale.core.shared import HealthPolicy
from gale.core.state import NodeInfo
from gale.ports import Standing
from gale.rpc.limits import NODE_LIMITS
from gale.rpc.node_service import NodeService
from gale.rpc.server import listen
from gale.rpc.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from tests.raft.trio import free_addresses


class Gate:
    """Every node routes."""

    def policy(self) -> HealthPolicy:
        return HealthPolicy()

    def check(self, info: NodeInfo, serving: bool, reason: str = "") -> Standing:
        return Standing("routing")

    async def goodbye(self, info: NodeInfo) -> Standing:
        return Standing("left")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main() -> None:
    (address,) = free_addresses(1)
    server = await listen([address], NODE_LIMITS)
    add_NodeServiceServicer_to_server(NodeService(address, Gate()), server)
    await server.start()
    say(address)
    while await asyncio.to_thread(sys.stdin.readline):
        say(resident())
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(main())
