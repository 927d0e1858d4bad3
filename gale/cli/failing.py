"""How every gale program fails: one line on standard error and an exit code; a traceback with --debug only.

Where the answer would have been JSON or YAML, the line is a JSON object, which YAML is too: what was wrong, and the
exit code. Options that are wrong are told in the same way, as text, for who wrote them is a person.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import click
from click.exceptions import NoArgsIsHelpError

from gale.errors import GaleError

P = ParamSpec("P")
BUG = 1

debug_option = click.option("--debug", is_flag=True, help="Show where in gale an error came from, and log more.")


def tell(program: str, what: str, code: int = BUG, output: object = "") -> None:
    """`output`: how the answer would have been shown."""
    line = f"{program}: {what}"
    click.echo(json.dumps({"error": what, "code": code}) if output in ("json", "yaml") else line, err=True)


def one_line_errors(program: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Decorate a click command whose errors shall be one line, prefixed with the program's name."""

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            output = kwargs.get("output")
            try:
                command(*args, **kwargs)
            except GaleError as error:
                if kwargs.get("debug"):
                    raise
                tell(program, str(error), error.exit_code, output)
                sys.exit(error.exit_code)
            except (click.ClickException, click.Abort, click.exceptions.Exit):
                raise
            except BrokenPipeError:  # whoever read the output has had enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(BUG)
            except Exception as error:
                if kwargs.get("debug"):
                    raise
                tell(program, f"internal error: {error!r}; --debug shows where, please report it", BUG, output)
                sys.exit(BUG)

        return guarded

    return decorate


class OneLineCommand(click.Command):
    """A program whose options, when they are wrong, are told in one line, without click's three about usage."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **more: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **more)
        try:
            code = super().main(args, prog_name, complete_var, False, **more)
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            path = context.command_path if context else str(self.name)
            tell(path, f"{_sentence(error.format_message())}: {path} --help tells more")
            sys.exit(error.exit_code)
        except click.Abort:
            tell(str(self.name), "stopped")
            sys.exit(BUG)
        sys.exit(code if isinstance(code, int) else 0)


class OneLineGroup(OneLineCommand, click.Group):
    """The same of a program with verbs."""


def _sentence(message: str) -> str:
    text = " ".join(message.split()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}"
