"""What every verb of gale-ctl has: formats, watching, colours, exit codes, completion."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator

import click
import pytest
import yaml
from click.testing import CliRunner

from gale.cli.ctl import main as gale_ctl
from gale.cli.lab import main as gale_lab
from gale.cli.lb import main as gale_lb
from gale.cli.node import main as gale_node
from gale.core.state import Phase
from gale.errors import NoAnswerError
from gale.rpc.client import Server
from tests.raft.trio import free_addresses
from tests.rpc.test_conversation import Box, eventually, load_balancer, node
from tests.rpc.test_dataplane import ctl

HOME = b"\x1b[H"


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
        words = ["cluster", "status", "--watch=0.1", "--timeout", "5", "-o", output, "--server", str(box.api)]
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
        for _ in range(2):
            assert json.loads(await program.stderr.readline())["code"] == NoAnswerError.exit_code
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


async def test_an_error_is_one_line_in_json_where_the_answer_would_be(box: Box) -> None:
    for output in ("json", "yaml"):
        told = await ctl(box.api, "node", "drain", "wbe", "-o", output, code=1)
        assert yaml.safe_load(told) == {"error": f"{box.api}: no node is called wbe", "code": 1}
        assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("program", "name", "words", "said"),
    [
        (gale_ctl, "gale-ctl", "node drain", "gale-ctl node drain: missing argument 'NODE'"),
        (gale_ctl, "gale-ctl", "nodde list", "gale-ctl: no such command 'nodde'"),
        (gale_ctl, "gale-ctl", "node list --server x", "gale-ctl node list: invalid value for '--server'"),
        (gale_ctl, "gale-ctl", "flows kill", "gale-ctl flows kill: say which: --client"),
        (gale_lb, "gale-lb", "", "gale-lb: missing option '--config': gale-lb --help tells more"),
        (gale_node, "gale-node", "--confg x", "gale-node: no such option"),
        (gale_lab, "gale-lab", "up --nodes x", "gale-lab up: invalid value for '--nodes'"),
    ],
)
def test_options_that_are_wrong_are_one_line_too(program: click.Command, name: str, words: str, said: str) -> None:
    result = CliRunner().invoke(program, words.split(), prog_name=name)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(said)


async def test_on_a_terminal_each_reading_takes_the_place_of_the_one_before_without_clearing_it(box: Box) -> None:
    ours, theirs = pty.openpty()
    try:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gale.cli.ctl", "node", "list", "--watch=0.1", "--server", str(box.api)),
            stdout=theirs,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"},
        )
        shown = b""
        async with asyncio.timeout(20):
            while shown.count(HOME) < 3:
                shown += await asyncio.to_thread(os.read, ours, 1 << 16)
        program.send_signal(2)
        assert await asyncio.wait_for(program.wait(), 20) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"\x1b[2J" not in shown
    _, reading, *_ = shown.split(HOME)
    lines = reading.removesuffix(b"\x1b[J").split(b"\r\n")[:-1]
    assert len(lines) == 2
    assert all(line.endswith(b"\x1b[K") for line in lines)


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


@pytest.mark.parametrize(
    ("verb", "begun", "name"),
    [
        ("node drain", "w", "web"),
        ("service show", "d", "default"),
        ("flows list --service", "def", "default"),
        ("cluster transfer", "127", "127.0.0.1"),
    ],
)
async def test_names_are_completed(box: Box, verb: str, begun: str, name: str) -> None:
    words = ["gale-ctl", *verb.split()[:2], "--server", str(box.api), *verb.split()[2:], begun]
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gale.cli.ctl"),
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "_GALE_CTL_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
    )
    out, _ = await asyncio.wait_for(program.communicate(), 20)
    assert out.decode() == f"plain,{name}\n"
