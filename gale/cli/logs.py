"""The option that says how a program logs, for gale-lb and gale-node."""

import click

from gale.log import FORMS

log_format_option = click.option(
    "--log-format",
    type=click.Choice(FORMS),
    default=FORMS[0],
    show_default=True,
    envvar="GALE_LOG_FORMAT",
    show_envvar=True,
    help="How it logs: key=value, coloured on a terminal, or one JSON object a line.",
)
