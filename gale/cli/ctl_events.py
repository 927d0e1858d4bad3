"""gale-ctl events: what changed, when, why, and by whom. Every load balancer tells the same."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

import click
from rich.markup import escape
from rich.table import Column, Table

from gale.cli.asking import Asking, asks
from gale.cli.showing import Answer
from gale.errors import RemoteError
from gale.rpc.plain import plain
from gale.rpc.v1 import api_pb2 as pb

FOLLOW_S = 0.5


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with those to come, until you stop it.")
@click.option("--last", type=click.IntRange(0, 1_000), default=20, show_default=True, help="So many; 0: all there are.")
@partial(asks, watched=False)
async def events(asking: Asking, follow: bool, last: int) -> Answer:
    """What changed, when, why, and by whom: the last thousand events.

    They follow from the replicated log, so every load balancer tells the same, also after restarts. With --follow each
    is one line, in JSON too."""
    if follow:
        async for event in following(asking, last):
            asking.tell(Answer(event, partial(lines, event)))
    found = await fetch(asking, 0, last)
    return Answer(found, lambda: [event_table(found)])


async def fetch(asking: Asking, after: int, most: int) -> list[dict[str, Any]]:
    """Raises RemoteError."""
    answer = await asking.ask("GetEvents", pb.GetEventsRequest(after=after, most=most))
    return [plain(event) for event in answer.events]


async def following(asking: Asking, last: int) -> AsyncIterator[dict[str, Any]]:
    """A load balancer that does not answer is asked again, and that is said once. Raises RemoteError for the first."""
    found, told = await fetch(asking, 0, last), ""
    after = 0
    while True:
        for event in found:
            if after and event["sequence"] > after + 1:
                click.echo(f"gale-ctl: {event['sequence'] - after - 1} events were forgotten meanwhile", err=True)
            after = event["sequence"]
            yield event
        await asyncio.sleep(FOLLOW_S)
        try:
            found, told = await fetch(asking, after, 0), ""
        except RemoteError as error:
            found = []
            if str(error) != told:
                told = str(error)
                click.echo(f"gale-ctl: {told}; trying again", err=True)


def event_table(found: Iterable[dict[str, Any]]) -> Table:
    table = Table(Column("time", no_wrap=True), "index", "what", "change", "cause", "who", box=None)
    for event in found:
        change = f"{event['before']} -> {event['after']}"
        cells = (event["time"], str(event["index"]), event["subject"], change, event["cause"], event["who"])
        table.add_row(*map(escape, cells))
    return table


def lines(event: dict[str, Any]) -> Iterable[str]:
    change = f"{event['subject']}: {event['before']} -> {event['after']}"
    yield f"{event['time']} {change} ({event['cause']}; {event['who']}, index {event['index']})"
