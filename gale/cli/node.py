"""gale-node: register this machine as a node, and keep it registered."""

import faulthandler
import os
from functools import partial
from pathlib import Path

import click
import uvloop

import gale
from gale import node
from gale.cli.failing import OneLineCommand, debug_option, one_line_errors
from gale.cli.logs import log_format_option
from gale.config import load_node
from gale.errors import HostError
from gale.log import configure
from gale.supervisor import Supervisor
from gale.tls import Role, credentials


@click.command(cls=OneLineCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help="The configuration, e.g. /etc/gale/node.toml.")
@click.option("--check", is_flag=True, help="Only check the configuration.")
@click.option("--undo", is_flag=True, help="Put back what a gale-node that was killed has changed on this machine.")
@log_format_option
@debug_option
@click.version_option(gale.__version__, prog_name="gale-node")
@one_line_errors("gale-node")
def main(config: Path | None, check: bool, undo: bool, log_format: str, debug: bool) -> None:
    """Send health checks to every load balancer until stopped, then say goodbye.

    For services of mode l2 and l3 it also prepares this machine, and puts everything back when it stops.
    """
    if undo:
        configure("debug" if debug else "info", log_format)
        if not node.undo():
            raise HostError("this machine is not as it was: what could not be put back is told above")
        click.echo("nothing of gale-node's is left on this machine")
        return
    if config is None:
        raise click.UsageError("--config is missing: say where node.toml is")
    settings = load_node(config)
    if check:
        credentials(settings.tls, Role.NODE, [settings.name])
        click.echo(f"{config}: right; node {settings.name} checks in at {', '.join(settings.load_balancers)}")
        return
    configure("debug" if debug else "info", log_format)
    faulthandler.enable()  # a watchdog's SIGABRT then says where the loop is stuck
    uvloop.run(node.run(settings, partial(load_node, config), Supervisor.of(os.environ)))


if __name__ == "__main__":
    main()
