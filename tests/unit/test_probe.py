"""Real probes against real services: a listener, a web server, commands."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gale.core.probes import CommandProbe, HttpProbe, TcpProbe
from gale.probe import problem


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A web server that is well at / and not at /broken, and never answers at /silent."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if b"/silent" in line:
            await reader.read()
        if b"/garbage" in line:
            writer.write(b"\x00\x01 what?\r\n")
            writer.close()
            return
        status = b"503 Service Unavailable" if b"/broken" in line else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_tcp(port: int) -> None:
    assert await problem(TcpProbe(port), 10) is None
    assert "Connect call failed" in str(await problem(TcpProbe(1), 10))


async def test_http(port: int) -> None:
    assert await problem(HttpProbe(f"http://127.0.0.1:{port}/"), 10) is None
    assert "503" in str(await problem(HttpProbe(f"http://127.0.0.1:{port}/broken"), 10))
    assert "not an HTTP answer" in str(await problem(HttpProbe(f"http://127.0.0.1:{port}/garbage"), 10))
    assert "no answer within 0.2 s" in str(await problem(HttpProbe(f"http://127.0.0.1:{port}/silent"), 0.2))


async def test_command() -> None:
    assert await problem(CommandProbe(("true",)), 10) is None
    assert await problem(CommandProbe(("sh", "-c", "exit 3")), 10) == "sh ended with code 3"
    assert await problem(CommandProbe(("sleep", "30")), 0.2) == "no answer within 0.2 s"
    assert await problem(CommandProbe(("/no/such/command",)), 10) == "/no/such/command: no such command"
