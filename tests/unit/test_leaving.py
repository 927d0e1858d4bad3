"""A node that is told to stop: what it waits for, for how long, and what it says when that is in vain."""

import asyncio
import time
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from gale.leaving import NO_NEW_FLOWS, drained

A, B, C = "10.0.0.1:7070", "10.0.0.2:7070", "10.0.0.3:7070"


@dataclass
class LoadBalancer:
    server: str
    phase: str = "routing"
    flows: int | None = None


async def test_it_waits_for_every_load_balancer_that_answers_and_says_how_far_it_is() -> None:
    asked = [LoadBalancer(A), LoadBalancer(B), LoadBalancer(C, phase="")]
    said: list[str] = []
    with capture_logs() as lines:
        waiting = asyncio.create_task(drained(asked, asyncio.Event(), 20, said.append))
        await asyncio.sleep(0)
        asked[0].phase, asked[0].flows = "draining", 3
        await asyncio.sleep(0.3)
        asked[1].phase, asked[1].flows = "draining", 2
        await asyncio.sleep(0.3)
        assert not waiting.done()
        asked[0].flows = asked[1].flows = 0
        await asyncio.wait_for(waiting, 10)
    assert said == ["draining: its flows are not known yet", "draining: 5 flows go on"]
    assert [line["event"] for line in lines][1:] == [NO_NEW_FLOWS]
    assert lines[0]["load_balancers"] == C


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        (LoadBalancer(A, "draining", 12), f"12 at {A}"),
        (LoadBalancer(A, "routing"), f"{A} has it routing"),  # no quorum: nothing is decided
        (LoadBalancer(A, "draining"), f"{A} does not answer"),
    ],
)
async def test_the_limit_ends_it_and_what_is_left_is_one_line(asked: LoadBalancer, left: str) -> None:
    began_s = time.monotonic()
    with capture_logs() as lines:
        waiting = asyncio.create_task(drained([asked], asyncio.Event(), 0.3, lambda _: None))
        await asyncio.sleep(0.1)
        if "does not answer" in left:
            asked.phase = ""
        await asyncio.wait_for(waiting, 10)
    assert time.monotonic() - began_s > 0.25
    assert lines[-1] == {
        "event": "its flows have not ended, and it stops all the same",
        "left": left,
        "log_level": "warning",
    }


async def test_nobody_answers_and_nobody_is_waited_for() -> None:
    with capture_logs() as lines:
        await asyncio.wait_for(drained([LoadBalancer(A, ""), LoadBalancer(B, "")], asyncio.Event(), 60, print), 10)
    assert [line["load_balancers"] for line in lines] == [f"{A}, {B}"]


async def test_told_once_more_it_stops_at_once_and_without_a_limit_it_does_not_wait() -> None:
    hurry = asyncio.Event()
    waiting = asyncio.create_task(drained([LoadBalancer(A)], hurry, 60, lambda _: None))
    await asyncio.sleep(0.05)
    hurry.set()
    await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(drained([LoadBalancer(A)], asyncio.Event(), 0, lambda _: None), 10)
