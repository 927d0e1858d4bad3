"""The management API at a socket of this machine: gale-ctl finds it by itself, and the file says who may."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from gale.cli import asking
from gale.cli.ctl import main
from gale.errors import HostError
from gale.log import Refusals
from gale.rpc.api_service import ManagementService
from gale.rpc.limits import API_LIMITS
from gale.rpc.server import listen_here
from gale.rpc.v1.api_pb2_grpc import add_ManagementServiceServicer_to_server
from tests.rpc.test_conversation import ADDRESS, load_balancer


@asynccontextmanager
async def at_socket(path: Path) -> AsyncIterator[None]:
    async with load_balancer() as box:
        (server,) = await listen_here(path, API_LIMITS, Refusals("refused"))
        add_ManagementServiceServicer_to_server(ManagementService(box.controller, (ADDRESS,), 5555), server)
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)


async def ctl(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_gale_ctl_finds_the_socket_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "lb.sock"
    monkeypatch.setattr(asking, "SOCKET", path)
    async with at_socket(path):
        assert "of 0 nodes route" in await ctl("cluster", "status")
        assert "load balancer" in await ctl("events", "--server", f"unix:{path}")
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o660)


async def test_it_is_closed_to_others_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file allows before its group is set."""
    seen: list[int] = []
    monkeypatch.setattr("shutil.chown", lambda path, group: seen.append(stat.S_IMODE(path.stat().st_mode)))
    before = os.umask(0)
    try:
        async with at_socket(tmp_path / "lb.sock"):
            assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert seen == [0o660]


async def test_a_socket_in_use_is_refused_and_one_left_behind_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(HostError, match="another program's, which answers"):
            await listen_here(path, API_LIMITS, Refusals("refused"))
    async with at_socket(path):
        assert "of 0 nodes route" in await ctl("cluster", "status", "--server", f"unix:{path}")
    path.unlink(missing_ok=True)
    path.write_text("mine")
    with pytest.raises(HostError, match="is no socket"):
        await listen_here(path, API_LIMITS, Refusals("refused"))
    assert path.read_text() == "mine"


async def test_without_a_path_there_is_none() -> None:
    assert await listen_here(None, API_LIMITS, Refusals("refused")) == []
