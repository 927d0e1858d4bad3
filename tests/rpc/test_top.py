"""gale-ctl top on a real terminal: what it shows, and how it is left."""

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gale.cli.ctl_top import amount, busiest
from gale.core.state import Phase
from gale.ports import Counters, Traffic
from tests.rpc.test_conversation import ADDRESS, Box, eventually, load_balancer, node
from tests.rpc.test_dataplane import GONE, ctl

OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """Of 40 lines; what is written on it comes in `text`."""

    def __init__(self, columns: int) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        self.text = ""
        asyncio.get_running_loop().add_reader(self.ours, self._read)

    def _read(self) -> None:
        self.text += os.read(self.ours, 1 << 16).decode()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.ours)
        os.close(self.ours)
        os.close(self.theirs)


@asynccontextmanager
async def running(box: Box, columns: int = 140) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    terminal = Terminal(columns)
    elsewhere = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}  # of pytest's
    command = [sys.executable, "-m", "gale.cli.ctl", "top", "--interval", "0.2", "--server", str(box.api)]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWN_TERMINAL, *command),
        stdin=terminal.theirs,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        start_new_session=True,
        env={**elsewhere, "TERM": "xterm"},
    )
    try:
        yield terminal, program
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        terminal.close()


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A load balancer that routes to the node "web", with another in its list that does not answer."""
    async with load_balancer((ADDRESS, GONE)) as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        box.dataplane.counted = Counters({"forwarded": 4_242}, {"default": Traffic(1, 2)}, {1: Traffic(1, 2)})
        yield box


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
async def test_it_shows_the_cluster_until_it_is_left(box: Box, key: bytes) -> None:
    async with running(box) as (terminal, program):
        words = ("1 of 1 nodes route", ADDRESS, "web", "routing", "new flows/s", "forwarded", "4,242", "no connection")
        await eventually(lambda: all(word in terminal.text for word in words), 20)
        box.dataplane.counted = Counters({"forwarded": 1_000_000}, {}, {})
        await eventually(lambda: "1,000,000" in terminal.text)
        os.write(terminal.ours, b"x")  # means nothing
        os.write(terminal.ours, key)
        assert await asyncio.wait_for(program.wait(), 5) == 0
        assert termios.tcgetattr(terminal.theirs) == terminal.before
        await eventually(lambda: "\x1b[?1049l" in terminal.text)  # what was there before is there again
        assert "Traceback" not in terminal.text


async def test_a_load_balancer_that_stops_to_answer_is_told(box: Box) -> None:
    async with running(box, columns=80) as (terminal, program):
        await eventually(lambda: "4,242" in terminal.text, 20)
        box.dataplane.counted = Counters({"forwarded": -1})  # cannot be told: the call fails
        await eventually(lambda: "what is shown is older" in terminal.text)
        os.write(terminal.ours, b"q")
        assert await asyncio.wait_for(program.wait(), 5) == 0


async def test_without_a_terminal_it_says_what_to_do(box: Box) -> None:
    assert "gale-ctl counters --watch" in await ctl(box.api, "top", code=2)


def test_numbers_in_few_digits() -> None:
    numbers = {0.0: "0", 0.5: "0.5", 12: "12", 999.7: "1k", 12_345: "12.3k", 4_560_000: "4.56M", 7e12: "7T"}
    assert {number: amount(number) for number in numbers} == numbers


def test_the_busiest_comes_first() -> None:
    rows: dict[str, dict[str, Any]] = {
        "b": {"packets": 9, "per_s": {"packets": 1.0}},
        "a": {"packets": 9, "per_s": {"packets": 1.0}},
        "quick": {"packets": 1, "per_s": {"packets": 8.0}},
        "new": {"packets": 99, "per_s": None},
        "idle": {},
    }
    assert busiest(rows, "packets") == ["quick", "a", "b", "new", "idle"]
