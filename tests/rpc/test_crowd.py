"""What a node that checks in costs: of ten thousand, every kilobyte is ten megabytes."""

import asyncio
import resource
import sys
from asyncio.subprocess import PIPE, Process

from bench.crowd import Conversation, Node, Tally, address_of
from gale.node import CHECKS_AN_ANSWER

FIRST, NODES = 200, 400
KILOBYTES_MAX = 46
ANSWERS = 2


async def test_the_memory_of_a_node() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4_096), hard))
    listening = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.rpc.listening", stdin=PIPE, stdout=PIPE
    )
    assert listening.stdin
    try:
        server = await told(listening)
        await check_in(server, 1, FIRST)  # its threads and buffers are there now
        before = await resident(listening)
        tally = await check_in(server, FIRST + 1, NODES)
        assert tally.replies == ANSWERS * NODES
        assert (await resident(listening) - before) / NODES < 1_000 * KILOBYTES_MAX
    finally:
        listening.stdin.close()
        assert await asyncio.wait_for(listening.wait(), 10) == 0


async def check_in(server: str, first: int, count: int) -> Tally:
    """So many nodes, each from an address of its own; their connections stay."""
    tally, loop, (host, _, port) = Tally(), asyncio.get_running_loop(), server.rpartition(":")
    nodes = [Node(number, [server], 1) for number in range(first, first + count)]
    for number, node in enumerate(nodes, first):
        own = address_of(number).replace("10.", "127.", 1)
        _, node.conversations[server] = await loop.create_connection(
            lambda: Conversation(server, "http", tally), host, int(port), local_addr=(own, 0)
        )
    for answers in range(1, ANSWERS + 1):
        for node in nodes:
            for _ in range(CHECKS_AN_ANSWER if answers > 1 else 1):
                node.beat()
        async with asyncio.timeout(20):
            while tally.replies < answers * count:  # noqa: ASYNC110  what is waited for comes by the network
                await asyncio.sleep(0.02)
    return tally


async def told(process: Process) -> str:
    assert process.stdout
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()


async def resident(process: Process) -> int:
    assert process.stdin
    process.stdin.write(b"\n")
    return int(await told(process))
