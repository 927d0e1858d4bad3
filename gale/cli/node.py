"""gale-node: register this machine as a node, and keep it registered."""

from pathlib import Path

import click
import uvloop

import gale
from gale.cli.failing import debug_option, one_line_errors
from gale.config import load_node
from gale.log import configure
from gale.node import run
from gale.tls import Role, credentials


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The configuration, e.g. cmd/node.toml.")
@click.option("--check", is_flag=True, help="Only check the configuration.")
@debug_option
@click.version_option(gale.__version__, prog_name="gale-node")
@one_line_errors("gale-node")
def main(config: Path, check: bool, debug: bool) -> None:
    """Send health checks to every load balancer until stopped, then say goodbye."""
    settings = load_node(config)
    if check:
        credentials(settings.tls, Role.NODE, [settings.name])
        click.echo(f"{config}: right; node {settings.name} checks in at {', '.join(settings.load_balancers)}")
        return
    configure("debug" if debug else "info")
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
