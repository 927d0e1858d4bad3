"""How every gale program fails: one line on standard error and an exit code; a traceback with --debug only."""

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import click

from gale.errors import GaleError

P = ParamSpec("P")

debug_option = click.option("--debug", is_flag=True, help="Show where in gale an error came from, and log more.")


def one_line_errors(program: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Decorate a click command whose errors shall be one line, prefixed with the program's name."""

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                command(*args, **kwargs)
            except GaleError as error:
                if kwargs.get("debug"):
                    raise
                click.echo(f"{program}: {error}", err=True)
                sys.exit(error.exit_code)
            except (click.ClickException, click.Abort, click.exceptions.Exit):
                raise
            except BrokenPipeError:  # whoever read the output has had enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except Exception as error:
                if kwargs.get("debug"):
                    raise
                click.echo(f"{program}: internal error: {error!r}; --debug shows where, please report it", err=True)
                sys.exit(1)

        return guarded

    return decorate
