"""gale-ctl and flows: which there are in mode l4, how many, and an end to some."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import click
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table

from gale.cli.asking import Asking, asks, known_nodes, known_services, orders, require_one, unanswered
from gale.cli.ctl_orders import why_option
from gale.cli.showing import Answer, with_options
from gale.rpc.flows import FLOWS_MOST, STATES, clients_from
from gale.rpc.plain import parts_plain
from gale.rpc.v1 import api_pb2 as pb

WITHIN_S = 30.0
GONE = "gone"

Part = Mapping[str, Any]


def _client(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        clients_from(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


CHOICE = (
    click.option(
        "--client",
        default="",
        metavar="ADDRESS",
        callback=_client,
        help="Of this client: an address, a network such as 198.51.100.0/24, or ADDRESS:PORT ([ADDRESS]:PORT).",
    ),
    click.option("--node", default="", metavar="NODE", shell_complete=known_nodes, help="To this node."),
    click.option("--service", default="", metavar="SERVICE", shell_complete=known_services, help="Of this service."),
    click.option(
        "--state", default="", type=click.Choice(["", *STATES]), metavar="STATE", help=f"{', '.join(STATES)}."
    ),
)


def choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options that choose flows; all that are given must hold."""
    return with_options(command, CHOICE)


@click.group()
def flows() -> None:
    """The flows that load balancers know: those of mode l4."""


@flows.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1, FLOWS_MOST),
    default=100,
    show_default=True,
    help="At most so many of each load balancer.",
)
@choosing
@partial(asks, timeout_s=WITHIN_S)
async def flows_list(asking: Asking, limit: int, **choice: str) -> Answer:
    """Flows, in no order: the client, what it connected to, its node, and for how long nothing was seen of it."""
    parts = parts_plain(await asking.ask("GetFlows", pb.GetFlowsRequest(choice=pb.FlowChoice(**choice), limit=limit)))
    require_one(parts)

    def shown() -> Iterable[RenderableType]:
        yield flow_table(parts)
        yield from (f"{part['address']}: and more: --limit shows up to {FLOWS_MOST}" for part in parts if part["more"])
        yield from unanswered(parts)

    return Answer({"load_balancers": parts}, shown)


@flows.command("count")
@choosing
@partial(asks, timeout_s=WITHIN_S)
async def flows_count(asking: Asking, **choice: str) -> Answer:
    """How many flows there are, by service, node and state.

    opening: its client has not shown yet that it gets answers; established: it has; ended: it was reset or closed, or
    has been quiet for too long, and its place is free for another."""
    parts = parts_plain(await asking.ask("CountFlows", pb.CountFlowsRequest(choice=pb.FlowChoice(**choice))))
    require_one(parts)
    return Answer({"load_balancers": parts}, lambda: (count_table(parts), *unanswered(parts)))


@flows.command("kill")
@choosing
@click.option("--all", "every", is_flag=True, help="All of them: said in the place of a choice.")
@why_option
@partial(orders, timeout_s=WITHIN_S)
async def flows_kill(asking: Asking, every: bool, why: str, **choice: str) -> Answer:
    """Reset flows: at least one option must say which.

    Every load balancer forgets them, and both ends of an established connection of TCP are made to notice: they get a
    reset, also when they only wait. What else was going on, such as UDP, begins anew with the next packet, perhaps with
    another node. Ends with code 1 when a load balancer did not answer."""
    if not every and not any(choice.values()):
        raise click.UsageError("say which: --client, --node, --service, --state; or --all")
    if every and any(choice.values()):
        raise click.UsageError("--all goes with no choice")
    parts = parts_plain(await asking.ask("KillFlows", pb.KillFlowsRequest(choice=pb.FlowChoice(**choice), why=why)))
    require_one(parts)
    lines = [f"{part['address']}: {part['error'] or str(part['killed']) + ' flows killed'}" for part in parts]
    return Answer({"load_balancers": parts}, lambda: lines, bad=bool(unanswered(parts)))


def flow_table(parts: Sequence[Part]) -> Table:
    right = Column("quiet", justify="right")
    table = Table(
        "load balancer", "client", "connected to", "service", "node", "it sees port", "state", right, box=None
    )
    for part in parts:
        for flow in part["flows"]:
            table.add_row(
                part["address"],
                _place(flow["client"], flow["client_port"]),
                f"{_place(flow['destination'], flow['destination_port'])}/{flow['protocol']}",
                escape(flow["service"]),
                escape(flow["node"]) or f"[red]{GONE}[/]",
                str(flow["source_port"]),
                flow["state"],
                f"{flow['quiet_s']:.1f} s",
            )
    return table


def count_table(parts: Sequence[Part]) -> Table:
    """Of all load balancers together."""
    counted: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(STATES, 0))
    for part in parts:
        for row in part["counts"]:
            counted[row["service"], row["protocol"], row["node"]][row["state"]] += row["flows"]
    table = Table("service", "", "node", *(Column(state, justify="right") for state in STATES), box=None)
    for (service, protocol, node), states in sorted(counted.items()):
        cells = (str(states[state]) for state in STATES)
        table.add_row(escape(service), protocol, escape(node) or f"[red]{GONE}[/]", *cells)
    every = (str(sum(states[state] for states in counted.values())) for state in STATES)
    table.add_row("all", "", "", *every, style="bold")
    return table


def _place(address: str, port: int) -> str:
    return escape(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
