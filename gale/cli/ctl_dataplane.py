"""gale-ctl and the data plane: what it counts, what it would do with a packet, and whether it is as it should be."""

import asyncio
import ipaddress
from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from gale.cli.asking import Asking, asks, is_port, require_one, unanswered
from gale.cli.rates import with_rates
from gale.cli.showing import Answer
from gale.cli.tables import explanation_table, traffic_table, verdict_table
from gale.rpc.answers import explanations_plain
from gale.rpc.plain import parts_plain
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
@click.option("--protocol", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True, help="Of the packet.")
@partial(asks, timeout_s=35.0)
async def explain(asking: Asking, source: Endpoint, destination: Endpoint, protocol: str) -> Answer:
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
    answer = await asking.ask("Explain", request)
    parts = explanations_plain(answer.load_balancers)
    require_one(parts)
    return Answer({"load_balancers": parts}, lambda: [explanation_table(part) for part in parts])


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0, 3_600),
    default=1.0,
    show_default=True,
    help="Seconds between two readings, from which the rates follow; 0: one reading, without rates.",
)
@asks
async def counters(asking: Asking, interval: float) -> Answer:
    """Packets per verdict, and packets, bytes and new flows per service and node, of every load balancer.

    docs/VERDICTS.md says what each verdict means and asks for. What nodes answer directly (l2, l3) passes no load
    balancer and is not counted. With --watch the rates are those since the reading before, and the first has none."""
    if interval and not asking.watched:
        asking.kept = await read_counters(asking)
        await asyncio.sleep(interval)
    before, asking.kept = asking.kept or [], await read_counters(asking)
    parts = with_rates(before, asking.kept)
    return Answer(
        {"load_balancers": parts},
        lambda: (
            verdict_table(parts),
            traffic_table("service", parts),
            traffic_table("node", parts),
            *unanswered(parts),
        ),
    )


async def read_counters(asking: Asking) -> Parts:
    """Raises RemoteError when there are none."""
    answer = await asking.ask("GetCounters", pb.GetCountersRequest())
    parts = parts_plain(answer)
    require_one(parts)
    return parts


@click.group()
def dataplane() -> None:
    """The kernel side of the load balancers."""


@dataplane.command("verify")
@asks
async def verify(asking: Asking) -> Answer:
    """Compare what every load balancer's kernel holds with what was written there, and mend it.

    Ends with code 1 when something differed, or when a load balancer did not answer."""
    answer = await asking.ask("VerifyDataplane", pb.VerifyDataplaneRequest())
    parts = parts_plain(answer)

    def lines() -> Iterator[str]:
        for part in parts:
            told = [f"mended: {difference}" for difference in part["differences"]]
            for line in told or [part["error"] or "as it should be"]:
                yield f"{part['address']}: {line}"

    bad = any(part["differences"] or part["error"] for part in parts)
    return Answer({"load_balancers": parts}, lines, bad)
