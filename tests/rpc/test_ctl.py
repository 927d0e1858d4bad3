"""What every verb of gale-ctl has: formats, watching, colours, exit codes, completion."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator

import pytest
import yaml

from gale.core.state import Phase
from gale.rpc.client import Server
from tests.raft.trio import free_addresses
from tests.rpc.test_conversation import Box, eventually, load_balancer, node
from tests.rpc.test_dataplane import ctl


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A load balancer that routes to the node "web"."""
    async with load_balancer() as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        yield box


async def test_json_and_yaml_say_the_same(box: Box) -> None:
    plain = json.loads(await ctl(box.api, "node", "list", "-o", "json"))
    assert plain[0]["id"] == "web"
    assert yaml.safe_load(await ctl(box.api, "node", "list", "-o", "yaml")) == plain


@pytest.mark.parametrize("output", ["json", "yaml"])
async def test_a_question_is_asked_again_until_it_is_stopped_and_outlives_trouble(output: str) -> None:
    async with load_balancer() as box:
        words = ["cluster", "status", "--watch=0.1", "--timeout", "0.3", "-o", output, "--server", str(box.api)]
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gale.cli.ctl", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert program.stdout
        assert program.stderr
        async with asyncio.timeout(20):
            begin = b"---\n" if output == "yaml" else b"{"
            lines = [await program.stdout.readline() for _ in range(3)]
            assert lines[0].startswith(begin)
    async with asyncio.timeout(20):  # the load balancer is gone
        assert b"gale-ctl: " in await program.stderr.readline()
        assert b"gale-ctl: " in await program.stderr.readline()
        program.send_signal(2)
        await program.communicate()
    assert program.returncode == 0


async def test_exit_codes_tell_bad_news_from_no_news(box: Box) -> None:
    box.consensus.quorum = False
    assert "NO QUORUM" in await ctl(box.api, "cluster", "status", code=1)
    box.consensus.quorum = True
    assert "no node is called wbe" in await ctl(box.api, "node", "drain", "wbe", code=1)
    assert "'xml' is not one of" in await ctl(box.api, "node", "list", "-o", "xml", code=2)
    nowhere = Server(free_addresses(1)[0])
    told = await ctl(nowhere, "node", "list", code=3)
    assert told == f"gale-ctl: {nowhere}: no connection: is gale-lb running there?\n"


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_colours_are_for_terminals(box: Box, variables: dict[str, str], coloured: bool) -> None:
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    ours, theirs = pty.openpty()
    try:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gale.cli.ctl", "node", "list", "--server", str(box.api)),
            stdout=theirs,
            env={**plain, "TERM": "xterm-256color", "COLUMNS": "200", **variables},
        )
        assert await asyncio.wait_for(program.wait(), 20) == 0
        shown = os.read(ours, 1 << 16)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"web" in shown
    assert (b"\x1b[32m" in shown) == coloured
    assert b"\x1b[" not in (await ctl(box.api, "node", "list")).encode()


async def test_names_of_nodes_are_completed(box: Box) -> None:
    words = f"gale-ctl node drain --server {box.api} w"
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gale.cli.ctl"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "_GALE_CTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "5"},
    )
    out, _ = await asyncio.wait_for(program.communicate(), 20)
    assert out == b"plain,web\n"
