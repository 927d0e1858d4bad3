"""gale-ctl: ask the load balancers, and tell them."""

import json
import re
from collections.abc import Callable

import click
import uvloop
from rich.console import Console
from rich.table import Table

import gale
from gale.cli.ctl_tls import PROOF, proving, tls
from gale.cli.failing import debug_option, one_line_errors
from gale.cli.tables import load_balancer_table, node_table, summary, verdict_table
from gale.rpc.client import Server, fetch_cluster_status, fetch_local_status, set_drain


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gale.__version__, prog_name="gale-ctl")
def main() -> None:
    """Ask the load balancers how they and the nodes are.

    Any of them answers for the whole cluster, also without a quorum."""


def host_and_port(context: click.Context, parameter: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", host) or not port.isdecimal() or not 1 <= int(port) <= 65_535:
        raise click.BadParameter(f"{value!r}: write e.g. 192.168.1.2:5555")
    return value


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every question has."""
    options = (
        click.option(
            "--server",
            default="127.0.0.1:5555",
            show_default=True,
            callback=host_and_port,
            help="HOST:PORT of a load balancer's API.",
        ),
        click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True),
        click.option("--timeout", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Seconds to wait."),
        *PROOF,
        debug_option,
    )
    command = one_line_errors("gale-ctl")(proving(command))
    for option in reversed(options):
        command = option(command)
    return command


@main.group()
def cluster() -> None:
    """The cluster as a whole."""


@cluster.command("status")
@click.option("--strong", is_flag=True, help="As of now: ask through the log, which needs a quorum.")
@asks
def cluster_status(server: Server, output: str, timeout: float, debug: bool, strong: bool) -> None:
    """Who leads, who follows, and how every node stands."""
    status = uvloop.run(fetch_cluster_status(server, timeout, strong=strong))
    if output == "json":
        click.echo(json.dumps(status, indent=2))
        return
    show(load_balancer_table(status), node_table(status))
    click.echo(summary(status))


@main.group()
def node() -> None:
    """The nodes."""


@node.command("list")
@asks
def node_list(server: Server, output: str, timeout: float, debug: bool) -> None:
    """Every node with its phase, its checks at each load balancer, and its fails."""
    status = uvloop.run(fetch_cluster_status(server, timeout))
    if output == "json":
        click.echo(json.dumps(status["nodes"], indent=2))
    else:
        show(node_table(status))


@node.command("drain")
@click.argument("name")
@asks
def node_drain(server: Server, output: str, timeout: float, debug: bool, name: str) -> None:
    """Give the node no new flows; it keeps those it has. The order outlives failures."""
    order_drain(server, output, timeout, name, on=True)


@node.command("undrain")
@click.argument("name")
@asks
def node_undrain(server: Server, output: str, timeout: float, debug: bool, name: str) -> None:
    """Give the node new flows again."""
    order_drain(server, output, timeout, name, on=False)


def order_drain(server: Server, output: str, timeout: float, name: str, on: bool) -> None:
    answer = uvloop.run(set_drain(server, name, on, timeout))
    if output == "json":
        click.echo(json.dumps({"id": name, "phase": answer.phase, "drained": answer.drained}, indent=2))
    elif on and answer.phase != "draining":
        click.echo(f"node {name}: {answer.phase}; it will be drained when it would route")
    else:
        click.echo(f"node {name}: {answer.phase}")


@main.command("counters")
@asks
def counters(server: Server, output: str, timeout: float, debug: bool) -> None:
    """Packets per verdict on the load balancer that is asked; bpf/README.md says what each verdict means."""
    local = uvloop.run(fetch_local_status(server, timeout))
    verdicts = dict(sorted(local.verdicts.items()))
    if output == "json":
        click.echo(json.dumps(verdicts, indent=2))
    else:
        show(verdict_table(verdicts))


main.add_command(tls)


def show(*tables: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for table in tables:
        console.print(table)


if __name__ == "__main__":
    main()
