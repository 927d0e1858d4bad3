"""A node that floods its load balancer does not keep another node's checks, nor the memory, nor the processor."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from gale.errors import RemoteError
from gale.rpc.client import Server, fetch_local_status, node_link
from gale.rpc.limits import CHECKS_BURST, CHECKS_PER_S, NODE_LIMITS, Limits
from gale.rpc.v1 import node_pb2
from tests.rpc.certificates import Gate, echo, serving

FLOOD_S = 3.0


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024


@pytest.mark.parametrize("streams", [1, 12])
async def test_a_flood_of_checks_is_held_back_at_its_sender(streams: int) -> None:
    gate = Gate()

    async def every_third_of_a_second() -> AsyncIterator[node_pb2.Check]:
        while True:
            sent.append(gate.checks.get("flood", 0))
            yield node_pb2.Check(node="well", weight=1, reports_to=1, condition=node_pb2.CONDITION_SERVING)
            await asyncio.sleep(0.33)

    sent: list[int] = []
    between: list[int] = []
    async with serving(None, gate=gate, limits=NODE_LIMITS) as address, node_link(Server(address)) as link:
        replies = link.checks(every_third_of_a_second())
        await anext(replies)
        command = (sys.executable, "-m", "tests.rpc.flood", address, str(streams))
        flood = await asyncio.create_subprocess_exec(*command)
        try:
            async with asyncio.timeout(20):
                while not gate.checks.get("flood"):
                    await anext(replies)
                began_s, memory = time.monotonic(), resident_mib()
                busy_s, before = time.process_time(), gate.checks["flood"]
                while time.monotonic() - began_s < FLOOD_S:
                    await anext(replies)
                    between.append(gate.checks["flood"] - sent[-1])
            took_s = time.monotonic() - began_s
            taken, busy_s = gate.checks["flood"] - before, time.process_time() - busy_s
        finally:
            flood.kill()
            await flood.wait()
    assert len(between) >= 3
    assert max(between) <= streams * CHECKS_BURST, "checks of the flood that were taken before one that is well"
    assert taken <= streams * (CHECKS_BURST + took_s * CHECKS_PER_S)
    assert busy_s < took_s / 2
    assert resident_mib() - memory < 32


async def test_calls_beyond_what_one_address_may_have_open_are_refused() -> None:
    released = asyncio.Event()

    async def slow(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await released.wait()
        return request

    handler = grpc.method_handlers_generic_handler("x", {"Slow": grpc.unary_unary_rpc_method_handler(slow)})
    limits = Limits(calls_per_s=1_000, burst=1_000, open_per_source=2, open_in_all=100, connections=100)
    async with serving(None, handler, limits=limits) as address, grpc.aio.insecure_channel(address) as channel:
        calls = [asyncio.ensure_future(as_code(channel)) for _ in range(5)]
        async with asyncio.timeout(5):
            while sum(call.done() for call in calls) < 3:
                await asyncio.wait(calls, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            released.set()
            codes = [await call for call in calls]
    assert codes.count(grpc.StatusCode.OK) == 2
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3


async def as_code(channel: grpc.aio.Channel) -> grpc.StatusCode:
    try:
        await channel.unary_unary("/x/Slow")(b"", timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_connections_beyond_the_limit_are_closed() -> None:
    limits = Limits(calls_per_s=1_000, burst=1_000, open_per_source=100, open_in_all=100, connections=3)
    async with serving(None, echo("gale.v1.ManagementService", ["GetLocalStatus"]), limits=limits) as address:
        idle = [await asyncio.open_connection(*address.split(":")) for _ in range(3)]
        await asyncio.sleep(0.2)
        with pytest.raises(RemoteError):
            await fetch_local_status(Server(address), 1)
        async with asyncio.timeout(6):  # idle ones have to say something within two seconds
            while True:
                try:
                    await fetch_local_status(Server(address), 1)
                    break
                except RemoteError:
                    await asyncio.sleep(0.1)
        for _, writer in idle:
            writer.transport.abort()
