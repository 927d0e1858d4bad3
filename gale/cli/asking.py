"""What every question of gale-ctl has in common: whom it asks, how long it waits, and how the answer is shown."""

import json
import re
from collections.abc import Callable

import click
from rich.console import Console, RenderableType

from gale.cli.ctl_tls import PROOF, proving
from gale.cli.failing import debug_option, one_line_errors


def host_and_port(context: click.Context, parameter: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", host) or not is_port(port):
        raise click.BadParameter(f"{value!r}: write e.g. 192.168.1.2:5555")
    return value


def is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text) <= 65_535


def asks(command: Callable[..., None], timeout_s: float = 3.0) -> Callable[..., None]:
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
        click.option(
            "--timeout", type=click.FloatRange(0.1), default=timeout_s, show_default=True, help="Seconds to wait."
        ),
        *PROOF,
        debug_option,
    )
    command = one_line_errors("gale-ctl")(proving(command))
    for option in reversed(options):
        command = option(command)
    return command


def show(*shown: RenderableType) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for one in shown:
        console.print(one)


def show_json(answer: object, indent: int | None = 2) -> None:
    click.echo(json.dumps(answer, indent=indent))
