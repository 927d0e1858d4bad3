"""How gale-node stops: its node is drained first, for as long as it takes or a limit allows.

The load balancers are asked several times a second, by the checks that go on. Each says how many flows of the node it
knows still, or nothing while it may give the node new ones or does not know yet. Those are waited for that answered
when gale-node was told to stop. Also one that falls silent meanwhile: its kernel forwards on, perhaps new flows too.
One that was silent already may be off for good.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

log = structlog.get_logger()

LOOK_S = 0.2
NO_NEW_FLOWS = "the node gets no new flows any more"


class Asked(Protocol):
    """A load balancer. `phase`: of the node, as it says; empty while it does not answer. `flows`: None while it may
    give the node new ones."""

    @property
    def server(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def flows(self) -> int | None: ...


async def drained(
    load_balancers: Sequence[Asked], hurry: asyncio.Event, within_s: float, tell: Callable[[str], None]
) -> None:
    """Return when they give this node no new flows and know none of it any more, when the time is up, or at once when
    `hurry` is set. `tell`: the one line about how it is."""
    if not within_s:
        return
    asked = [each for each in load_balancers if each.phase]
    if silent := ", ".join(each.server for each in load_balancers if not each.phase):
        log.warning("told to stop; load balancers that do not answer are not waited for", load_balancers=silent)
    end_s, told = time.monotonic() + within_s, (False, 0)
    while (left := [each for each in asked if each.flows != 0]) and not hurry.is_set():
        closed, flows = all(each.flows is not None for each in left), sum(each.flows or 0 for each in left)
        if closed and not told[0]:
            log.info(NO_NEW_FLOWS, that_go_on=flows)
        if (closed, flows) != told:
            told = closed, flows
            tell(f"draining: {flows} flows go on" if closed else "draining: its flows are not known yet")
        if (more_s := end_s - time.monotonic()) <= 0:
            break
        await first_of(hurry, timeout_s=min(more_s, LOOK_S))
    if left:
        log.warning("its flows have not ended, and it stops all the same", left=", ".join(map(_still_has, left)))


def _still_has(load_balancer: Asked) -> str:
    if load_balancer.flows is not None:
        return f"{load_balancer.flows} at {load_balancer.server}"
    why = f"has it {load_balancer.phase}" if load_balancer.phase else "does not answer"
    return f"{load_balancer.server} {why}"


async def first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Return when one of the events is set, or when the time is up."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
