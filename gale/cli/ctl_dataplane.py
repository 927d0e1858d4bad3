"""gale-ctl and the data plane: what it counts, what it would do with a packet, and whether it is as it should be."""

import asyncio
import ipaddress
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import click
import uvloop

from gale.cli.asking import asks, is_port, show, show_json
from gale.cli.rates import with_rates
from gale.cli.tables import explanation_table, traffic_table, verdict_table
from gale.errors import RemoteError
from gale.rpc.answers import counters_plain, explanations_plain, verifications_plain
from gale.rpc.client import Server, ask, operator_link
from gale.rpc.v1 import api_pb2 as pb

Endpoint = tuple[str, int]
Parts = list[dict[str, Any]]


def endpoint(context: click.Context, parameter: click.Parameter, value: str) -> Endpoint:
    """ADDRESS:PORT, an IPv6 address in brackets."""
    host, _, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
        if is_port(port) and bracketed == (address.version == 6):
            return str(address), int(port)
    except ValueError:
        pass  # told below, like everything else that is no endpoint
    raise click.BadParameter(f"{value!r}: write e.g. 192.0.2.1:40000 or [2001:db8::1]:40000")


@click.command()
@click.argument("source", metavar="SRC:PORT", callback=endpoint)
@click.argument("destination", metavar="DST:PORT", callback=endpoint)
@click.option("--protocol", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True)
@partial(asks, timeout_s=35.0)
def explain(
    server: Server,
    output: str,
    timeout: float,
    debug: bool,
    source: Endpoint,
    destination: Endpoint,
    protocol: str,
) -> None:
    """What every load balancer would do with such a packet, if it arrived there.

    The program itself runs over the maps as they are, and leaves no trace. It is asked for a packet in the middle of a
    flow first, and where no such flow is known, for the first packet of a new one. An IPv6 address stands in brackets.
    The first question to a load balancer takes some seconds: what answers it is compiled then.
    """
    if (":" in source[0]) != (":" in destination[0]):
        raise click.UsageError(f"{source[0]} and {destination[0]}: a packet has addresses of one IP version")
    request = pb.ExplainRequest(
        source=source[0],
        source_port=source[1],
        destination=destination[0],
        destination_port=destination[1],
        protocol=protocol,
    )
    answer = uvloop.run(ask(server, "Explain", request, timeout))
    parts = explanations_plain(answer.load_balancers)
    require_one(parts)
    if output == "json":
        show_json({"load_balancers": parts})
    else:
        show(*(explanation_table(part) for part in parts))


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0, 3_600),
    default=1.0,
    show_default=True,
    help="Seconds between two readings, from which the rates follow; 0: one reading, without rates.",
)
@click.option("--watch", is_flag=True, help="Read again and again, until you stop it.")
@asks
def counters(server: Server, output: str, timeout: float, debug: bool, interval: float, watch: bool) -> None:
    """Packets per verdict, and packets, bytes and new flows per service and node, of every load balancer.

    bpf/README.md says what each verdict means. What nodes answer directly (l2, l3) passes no load balancer and is not
    counted."""

    async def follow() -> None:
        async for parts in readings(server, timeout, interval, watch):
            require_one(parts)
            tell(parts, output, watch)

    try:
        uvloop.run(follow())
    except KeyboardInterrupt:
        if not watch:
            raise


async def readings(server: Server, timeout_s: float, interval_s: float, watch: bool) -> AsyncIterator[Parts]:
    """One reading with its rates; `watch`: one after another, the first at once and without."""
    async with operator_link(server) as link:

        async def read() -> Parts:
            answer = await link.ask("GetCounters", pb.GetCountersRequest(), timeout_s)
            return counters_plain(answer.load_balancers)

        before: Parts = []
        now = await read()
        while watch or (interval_s and not before):
            if watch:
                yield with_rates(before, now)
            await asyncio.sleep(interval_s or 1.0)
            before, now = now, await read()
        yield with_rates(before, now)


def tell(parts: Parts, output: str, watch: bool) -> None:
    if output == "json":
        show_json({"load_balancers": parts}, indent=None if watch else 2)
        return
    if watch:
        click.clear()
    show(verdict_table(parts), traffic_table("service", parts), traffic_table("node", parts))
    for part in parts:
        if part["error"]:
            click.echo(f"{part['address']}: {part['error']}")


@click.group()
def dataplane() -> None:
    """The kernel side of the load balancers."""


@dataplane.command("verify")
@asks
def verify(server: Server, output: str, timeout: float, debug: bool) -> None:
    """Compare what every load balancer's kernel holds with what was written there, and mend it.

    Ends with code 1 when something differed, or when a load balancer did not answer."""
    answer = uvloop.run(ask(server, "VerifyDataplane", pb.VerifyDataplaneRequest(), timeout))
    parts = verifications_plain(answer.load_balancers)
    if output == "json":
        show_json({"load_balancers": parts})
    else:
        for part in parts:
            told = [f"mended: {difference}" for difference in part["differences"]]
            for line in told or [part["error"] or "as it should be"]:
                click.echo(f"{part['address']}: {line}")
    if any(part["differences"] or part["error"] for part in parts):
        sys.exit(1)


def require_one(parts: Parts) -> None:
    """Raise RemoteError when no load balancer gave an answer."""
    if all(part["error"] for part in parts):
        raise RemoteError("; ".join(f"{part['address']}: {part['error']}" for part in parts))
