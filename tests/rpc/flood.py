"""A hostile node: as many checks as go through one stream, or through many. `python -m tests.rpc.flood ADDRESS N`."""

import asyncio
import sys
from collections.abc import AsyncIterator

from gale.rpc.client import Server, node_link
from gale.rpc.v1 import node_pb2


async def stream(address: str) -> None:
    async def checks() -> AsyncIterator[node_pb2.Check]:
        while True:
            yield node_pb2.Check(node="flood", weight=1, reports_to=1, condition=node_pb2.CONDITION_SERVING)

    async with node_link(Server(address)) as link:
        async for _ in link.checks(checks()):
            pass


async def main(address: str, streams: int) -> None:
    await asyncio.gather(*(stream(address) for _ in range(streams)), return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
