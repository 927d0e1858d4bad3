"""gale-ctl's orders: each goes through the log, and is done when it returns."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click

from gale.cli.asking import Asking, Verb, known_load_balancers, node_argument, orders, unanswered
from gale.cli.showing import Answer
from gale.config.reading import in_ms
from gale.core.orders import WEIGHT_MAX
from gale.errors import NoAnswerError
from gale.rpc.plain import parts_plain
from gale.rpc.v1 import api_pb2 as pb

HAND_OVER_S = 10.0
LOOK_S = 0.25

why_option = click.option("--why", default="", help="Your reason, for those who read the events.")


def duration_ms(context: click.Context, parameter: click.Parameter, value: str | None) -> int:
    """As in the configuration; 0 when there is none."""
    if value is None:
        return 0
    told_ms = in_ms(value)
    if not told_ms:
        raise click.BadParameter(f'{value!r}: write e.g. "90s", "10m" or "24h"')
    return told_ms


def own_or_number(context: click.Context, parameter: click.Parameter, value: str) -> int:
    if value == "own":
        return 0
    if value.isascii() and value.isdecimal() and 1 <= int(value) <= WEIGHT_MAX:
        return int(value)
    raise click.BadParameter(f"{value!r}: 1 to {WEIGHT_MAX}, or own for the weight that the node itself says")


def node_order(verb: Verb) -> Callable[..., None]:
    """Give a verb the argument and the options that every order about a node has."""
    command: Callable[..., None] = node_argument(why_option(orders(verb)))
    return command


@click.command()
@click.option("--wait", is_flag=True, help="Return when its flows have ended, on every load balancer that answers.")
@click.option(
    "--within",
    "within_ms",
    metavar="TIME",
    default="5m",
    show_default=True,
    callback=duration_ms,
    help="--wait no longer than this; then end with code 1.",
)
@node_order
async def drain(asking: Asking, name: str, why: str, wait: bool, within_ms: int) -> Answer:
    """Give the node no new flows; it keeps those it has. The order outlives failures."""
    ordered = await order_drain(asking, name, True, why)
    return await ended(asking, name, within_ms / 1_000) if wait else ordered


async def ended(asking: Asking, name: str, within_s: float) -> Answer:
    """How the draining of a node came out: all its flows have ended, or the time is up."""
    until_s = time.monotonic() + within_s
    while True:
        parts = await draining(asking, name)
        told = [part for part in parts if not part["error"]]
        done = bool(told) and all(part["flows"] == 0 for part in told)
        if done or time.monotonic() >= until_s:
            break
        await asyncio.sleep(LOOK_S)

    def lines() -> Iterable[str]:
        yield f"node {name}: {'drained, its flows have ended' if done else 'its flows have not ended in time'}"
        for part in told:
            if part["flows"] != 0:
                flows = (
                    "does not know yet what the node has" if part["flows"] is None else f"{part['flows']} flows go on"
                )
                yield f"{part['address']}: {flows}"
        yield from unanswered(parts)

    return Answer({"id": name, "ended": done, "load_balancers": parts}, lines, bad=not done)


async def draining(asking: Asking, name: str) -> list[dict[str, Any]]:
    """What each load balancer says; one that does not answer now may in the next moment."""
    try:
        return parts_plain(await asking.ask("GetDraining", pb.GetDrainingRequest(node=name)))
    except NoAnswerError as error:
        return [{"address": "nobody", "error": str(error)}]


@click.command()
@node_order
async def undrain(asking: Asking, name: str, why: str) -> Answer:
    """Give the node new flows again."""
    return await order_drain(asking, name, False, why)


async def order_drain(asking: Asking, name: str, on: bool, why: str) -> Answer:
    answer = await asking.ask("SetDrain", pb.SetDrainRequest(node=name, on=on, why=why))
    later = "; it will be drained when it would route" if on and answer.phase != "draining" else ""
    return Answer(
        {"id": name, "phase": answer.phase, "drained": answer.drained},
        lambda: [f"node {name}: {answer.phase}{later}"],
    )


@click.command()
@click.option("--for", "for_ms", metavar="TIME", callback=duration_ms, help='How long, e.g. "10m"; else until unban.')
@node_order
async def ban(asking: Asking, name: str, for_ms: int, why: str) -> Answer:
    """Take the node out at once, with its flows, and refuse its checks."""
    return told(await asking.ask("SetBan", pb.SetBanRequest(node=name, on=True, for_ms=for_ms, why=why)))


@click.command()
@node_order
async def unban(asking: Asking, name: str, why: str) -> Answer:
    """Let the node join again, with no fails, whoever banned it."""
    return told(await asking.ask("SetBan", pb.SetBanRequest(node=name, on=False, why=why)))


@click.command()
@node_order
@click.argument("weight", metavar="WEIGHT|own", callback=own_or_number)
async def weight(asking: Asking, name: str, weight: int, why: str) -> Answer:
    """Give the node another share of new flows, 1 to 1000; own: the one that it says itself.

    The order outlives failures and restarts of the node."""
    return told(await asking.ask("SetWeight", pb.SetWeightRequest(node=name, weight=weight, why=why)))


@click.command()
@click.argument("to", metavar="[LOAD_BALANCER]", default="", shell_complete=known_load_balancers)
@why_option
@partial(orders, timeout_s=HAND_OVER_S)
async def transfer(asking: Asking, to: str, why: str) -> Answer:
    """Make LOAD_BALANCER (IP or IP:PORT) the leader; left out: any other."""
    leader = (await asking.ask("HandOver", pb.HandOverRequest(to=to, why=why))).leader
    return Answer({"leader": leader}, lambda: [f"leader {leader}"])


def told(node: pb.NodeStatus) -> Answer:
    until = node.banned_until if node.HasField("banned_until") else None
    ends = (f" until {until}" if until else " until unban") if node.phase == "banned" else ""
    return Answer(
        {"id": node.id, "phase": node.phase, "weight": node.weight, "banned_until": until},
        lambda: [f"node {node.id}: {node.phase}{ends}, weight {node.weight}"],
    )
