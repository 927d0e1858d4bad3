"""gale-lb: run a load balancer on this machine."""

import faulthandler
import os
from functools import partial
from pathlib import Path

import click
import uvloop

import gale
from gale.cli.checking import checked
from gale.cli.failing import OneLineCommand, debug_option, one_line_errors
from gale.cli.logs import log_format_option
from gale.config import load_lb
from gale.dataplane.rights import require_rights
from gale.log import configure
from gale.supervisor import Supervisor


@click.command(cls=OneLineCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(path_type=Path), required=True, help="The configuration, e.g. /etc/gale/lb.toml."
)
@click.option("--check", is_flag=True, help="Only check the configuration.")
@click.option("--detach", is_flag=True, help="Take gale's programs off the interfaces: this machine stops forwarding.")
@log_format_option
@debug_option
@click.version_option(gale.__version__, prog_name="gale-lb")
@one_line_errors("gale-lb")
def main(config: Path, check: bool, detach: bool, log_format: str, debug: bool) -> None:
    """Forward clients' traffic to the nodes, as agreed with the other load balancers."""
    settings = checked(config) if check else load_lb(config)
    if check:
        click.echo(f"{config}: right; hash of what all load balancers must share: {settings.shared.hash}")
        for warning in settings.warnings:
            click.echo(f"{config}: warning: {warning}", err=True)
        return
    require_rights()
    configure("debug" if debug else "info", log_format)
    from gale import lb  # loads Raft and gRPC, which only a running load balancer needs

    if detach:
        lb.remove(settings)
        click.echo(f"{settings.public_interface} and {settings.private_interface} are as they were before gale")
        return
    faulthandler.enable()  # a watchdog's SIGABRT then says where the loop is stuck
    uvloop.run(lb.run(settings, partial(load_lb, config), Supervisor.of(os.environ)))


if __name__ == "__main__":
    main()
