"""gale-ctl: ask the load balancers, and tell them."""

import click
import uvloop

import gale
from gale.cli.asking import asks, show, show_json
from gale.cli.ctl_dataplane import counters, dataplane, explain
from gale.cli.ctl_tls import tls
from gale.cli.tables import load_balancer_table, node_table, summary
from gale.rpc.client import Server, fetch_cluster_status, set_drain


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gale.__version__, prog_name="gale-ctl")
def main() -> None:
    """Ask the load balancers how they and the nodes are.

    Any of them answers for the whole cluster, also without a quorum."""


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
        show_json(status)
        return
    show(load_balancer_table(status), node_table(status))
    click.echo(summary(status))


@main.group()
def node() -> None:
    """The nodes."""


@node.command("list")
@asks
def node_list(server: Server, output: str, timeout: float, debug: bool) -> None:
    """Every node with its phase, its checks at each load balancer, its fails, and what keeps it from serving."""
    status = uvloop.run(fetch_cluster_status(server, timeout))
    if output == "json":
        show_json(status["nodes"])
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
        show_json({"id": name, "phase": answer.phase, "drained": answer.drained})
    elif on and answer.phase != "draining":
        click.echo(f"node {name}: {answer.phase}; it will be drained when it would route")
    else:
        click.echo(f"node {name}: {answer.phase}")


for command in (explain, counters, dataplane, tls):
    main.add_command(command)


if __name__ == "__main__":
    main()
