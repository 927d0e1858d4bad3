"""Orders and strong questions over real gRPC: their outcome, or one line that says why there is none."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from gale.core.state import Phase
from gale.errors import RemoteError
from gale.rpc.client import fetch_cluster_status, set_drain
from tests.rpc.test_conversation import Box, eventually, load_balancer, node


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A load balancer that routes to the node "web"."""
    async with load_balancer() as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        yield box
        box.consensus.quorum = True


async def test_a_drain_is_committed_when_its_answer_comes(box: Box) -> None:
    answer = await set_drain(box.api, "web", True, 3)
    assert (answer.phase, answer.drained, box.phase()) == ("draining", True, Phase.DRAINING)
    status = await fetch_cluster_status(box.api, 3)
    assert status["nodes"][0]["drained"]
    assert (await set_drain(box.api, "web", False, 3)).phase == "routing"


async def test_an_order_that_is_refused_or_not_decided_says_why(box: Box) -> None:
    with pytest.raises(RemoteError, match="no node is called wbe"):
        await set_drain(box.api, "wbe", True, 3)
    box.consensus.quorum = False
    with pytest.raises(RemoteError, match="not committed: there is no leader"):
        await set_drain(box.api, "web", True, 3)
    assert box.phase() is Phase.ROUTING


async def test_a_strong_answer_goes_through_the_log_and_needs_a_quorum(box: Box) -> None:
    before = (await fetch_cluster_status(box.api, 3))["applied_index"]
    assert (await fetch_cluster_status(box.api, 3, strong=True))["applied_index"] == before + 1
    box.consensus.quorum = False
    with pytest.raises(RemoteError, match="not committed: there is no leader"):
        await fetch_cluster_status(box.api, 3, strong=True)
    assert not (await fetch_cluster_status(box.api, 3))["quorum"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("node drain web", 0, "node web: draining"),
        ("node undrain web", 0, "node web: routing"),
        ("node drain web -o json", 0, '"phase": "draining"'),
        ("node drain wbe", 1, "gale-ctl: SERVER: no node is called wbe"),
        ("cluster status --strong", 0, "1 of 1 nodes route"),
    ],
)
async def test_gale_ctl_prints_the_outcome_or_one_line(box: Box, arguments: str, code: int, words: str) -> None:
    command = [sys.executable, "-m", "gale.cli.ctl", *arguments.split(), "--server", str(box.api)]
    program = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(program.communicate(), 20)
    assert program.returncode == code
    assert words.replace("SERVER", str(box.api)) in (err if code else out).decode()
    assert code == 0 or err.count(b"\n") == 1
