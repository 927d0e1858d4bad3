"""gale-ctl: services with their nodes, and one node with all that is known of it."""

from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table

from gale.cli.asking import Asking, asks, known_services, node_argument, unanswered
from gale.cli.showing import Answer
from gale.cli.tables import in_colour
from gale.rpc.plain import parts_plain, plain
from gale.rpc.v1 import api_pb2 as pb

Plain = Mapping[str, Any]


@click.group()
def service() -> None:
    """The services."""


@service.command("list")
@asks
async def service_list(asking: Asking) -> Answer:
    """What clients connect to, and how many nodes get the flows of it. Ends with code 1 when a service has none."""
    answer = await asking.ask("GetServices", pb.GetServicesRequest())
    services = [plain(each) for each in answer.services]
    for each in services:
        del each["shares"]  # of one service, when it is asked for
    return Answer(services, lambda: [service_table(services)], bad=any(not each["routing"] for each in services))


@service.command("show")
@click.argument("name", metavar="SERVICE", shell_complete=known_services)
@asks
async def service_show(asking: Asking, name: str) -> Answer:
    """Where each load balancer serves it, and which node has how much of it. Ends with code 1 when no node gets flows
    of it, or when there is no such service."""
    answer = await asking.ask("GetServices", pb.GetServicesRequest(name=name))
    told = plain(answer.services[0])
    parts = parts_plain(await asking.ask("GetConfiguration", pb.GetConfigurationRequest()))
    told["load_balancers"] = [
        {
            "address": part["address"],
            "error": part["error"],
            "places": part["serves"].get(name, {"places": []})["places"],
        }
        for part in parts
    ]

    def shown() -> Iterable[RenderableType]:
        yield service_table([told])
        yield places_table(told["load_balancers"])
        yield share_table("node", told["shares"], told["slots"])

    return Answer(told, shown, bad=not told["routing"])


@click.command("show")
@node_argument
@asks
async def node_show(asking: Asking, name: str) -> Answer:
    """All that is known of a node: its phase, its share of each service, how each load balancer reaches it, and what
    went there. Ends with code 1 when there is no such node."""
    answer = await asking.ask("GetNode", pb.GetNodeRequest(name=name))
    slots = {each.name: each.slots for each in (await asking.ask("GetServices", pb.GetServicesRequest())).services}
    told = plain(answer)

    def shown() -> Iterable[RenderableType]:
        yield facts_table(told["node"])
        yield share_table("service", told["shares"], max(slots.values(), default=0))
        yield reached_table(told["load_balancers"])
        yield from unanswered(told["load_balancers"])

    return Answer(told, shown)


def service_table(services: Iterable[Plain]) -> Table:
    table = Table("service", "mode", "clients connect to", "nodes", "target port", box=None)
    for each in services:
        places = [f"[{address}]" if ":" in address else address for address in each["addresses"]] or ["own addresses"]
        protocols = "+".join(each["protocols"])
        empty = each["routing"] == 0
        table.add_row(
            escape(each["name"]),
            each["mode"] + (f" in {each['tunnel']}" if each["tunnel"] else ""),
            escape(f"{', '.join(places)} port {each['port']}/{protocols}"),
            f"[{'bold red' if empty else 'green'}]{each['routing']} of {each['nodes']} route[/]",
            str(each["target_port"]),
        )
    return table


def places_table(parts: Iterable[Plain]) -> Table:
    table = Table("load balancer", "serves it at", box=None)
    for part in parts:
        table.add_row(part["address"], escape(part["error"] or ", ".join(part["places"]) or "not at all"))
    return table


def share_table(of: str, shares: Iterable[Plain], slots: int) -> Table:
    """`of`: "node" or "service", which differ from row to row."""
    right = [Column(name, justify="right") for name in ("weight", "slots", "share")]
    table = Table(of, "phase", *right, box=None)
    for share in shares:
        part = f"{100 * share['slots'] / slots:.2f} %" if slots else ""
        phase = in_colour(share["phase"])
        table.add_row(escape(share[of]), phase, str(share["weight"]), str(share["slots"]), part)
    return table


def facts_table(node: Plain) -> Table:
    table = Table(Column(escape(node["id"]), no_wrap=True), in_colour(node["phase"]), box=None)
    facts = {
        "since": node["since"],
        "addresses": ", ".join(filter(None, (node["address"], node["address6"]))),
        "services": ", ".join(node["services"]) or "all",
        "weight": str(node["weight"]),
        "checks": " ".join(f"{lb}={count}" for lb, count in node["checks"].items()),
        "fails": str(node["fails"]),
        "banned until": node["banned_until"],
        "drained": "by order" if node["drained"] else "",
        "reason": node["reason"],
    }
    for name, value in facts.items():
        if value:
            table.add_row(f"  {name}", escape(value))
    return table


def reached_table(parts: Iterable[Plain]) -> Table:
    columns = {"in_packets": "packets in", "in_bytes": "bytes in", "out_packets": "out", "out_bytes": "bytes out"}
    columns["flows"] = "new flows"
    right = (Column(name, justify="right") for name in columns.values())
    table = Table("load balancer", "reaches it", *right, box=None)
    for part in parts:
        if part["error"]:
            continue
        ways = [f"{way['address']} {way_in_words(way)}" for way in part["reached"]] or ["its maps do not hold it"]
        if part["taken_away"]:
            ways.append("taken away here, while there is no quorum")
        counts = part["traffic"] or dict.fromkeys(columns, 0)
        table.add_row(part["address"], escape("\n".join(ways)), *(str(counts[key]) for key in columns))
    return table


def way_in_words(way: Plain) -> str:
    if not way["interface"]:
        return f"not: {way['trouble']}"
    through = f"through {way['router']}" if way["router"] else "directly"
    vlan = f", VLAN {way['vlan']}" if way["vlan"] else ""
    return f"{through} at {way['mac'] or way['trouble']}, out of {way['interface']}{vlan}, MTU {way['mtu']}"
