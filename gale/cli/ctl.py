"""gale-ctl: ask the load balancers, and tell them."""

import click
from click.shell_completion import get_completion_class

import gale
from gale.cli.asking import Asking, asks
from gale.cli.ctl_bundle import support_bundle
from gale.cli.ctl_config import config
from gale.cli.ctl_dataplane import counters, dataplane, explain
from gale.cli.ctl_events import events
from gale.cli.ctl_flows import flows
from gale.cli.ctl_orders import ban, drain, transfer, unban, undrain, weight
from gale.cli.ctl_show import node_show, service
from gale.cli.ctl_tls import tls
from gale.cli.ctl_top import top
from gale.cli.failing import OneLineGroup
from gale.cli.showing import Answer
from gale.cli.tables import load_balancer_table, node_table, summary
from gale.log import beside_answers

COMPLETED_BY = "_GALE_CTL_COMPLETE"


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gale.__version__, prog_name="gale-ctl")
def main() -> None:
    """Ask the load balancers how they and the nodes are, and give orders.

    Any of them answers for the whole cluster, also without a quorum, and takes every order.

    Exit codes: 0 done, and the answer is good; 1 the answer is bad news, or the order was refused; 2 an option is
    wrong; 3 nobody answered."""
    beside_answers()


@main.group()
def cluster() -> None:
    """The cluster as a whole."""


@cluster.command("status")
@click.option("--strong", is_flag=True, help="As of now: ask through the log, which needs a quorum.")
@asks
async def cluster_status(asking: Asking, strong: bool) -> Answer:
    """Who leads, who follows, and how every node stands. Ends with code 1 when there is no quorum."""
    status = await asking.cluster_status(strong)
    return Answer(
        status,
        lambda: (load_balancer_table(status), node_table(status), summary(status)),
        bad=not status["quorum"],
    )


@main.group()
def node() -> None:
    """The nodes."""


@node.command("list")
@asks
async def node_list(asking: Asking) -> Answer:
    """Every node with its phase, its checks at each load balancer, its fails, and what keeps it from serving."""
    status = await asking.cluster_status()
    return Answer(status["nodes"], lambda: [node_table(status)])


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options and names.

    \b
    bash  eval "$(gale-ctl completion bash)"      in ~/.bashrc
    zsh   eval "$(gale-ctl completion zsh)"       in ~/.zshrc
    fish  gale-ctl completion fish | source       in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is not known to this version of click")
    click.echo(kind(main, {}, "gale-ctl", COMPLETED_BY).source())


for command in (explain, counters, dataplane, events, flows, tls, service, config, top, support_bundle):
    main.add_command(command)
for command in (node_show, drain, undrain, ban, unban, weight):
    node.add_command(command)
cluster.add_command(transfer)


if __name__ == "__main__":
    main(prog_name="gale-ctl", complete_var=COMPLETED_BY)
