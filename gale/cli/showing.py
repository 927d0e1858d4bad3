"""How an answer is shown: as tables for people, as JSON or YAML for programs, once or again and again.

A verb gives an Answer, and this is the one place that prints it. Tables are made from the plain values that JSON and
YAML print, so a script can read all that a person sees. Colours are for terminals, and not where NO_COLOR is set.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.text import Text

from gale.cli.failing import debug_option, one_line_errors

FORMATS = ("table", "json", "yaml")
BAD = 1
"""Exit code of an answer that is bad news."""

_WIDTH_OF_A_FILE = 1_000
"""Lines are not broken where no person looks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    plain  what JSON and YAML print
    shown  what a person sees: tables, and lines of text
    bad    the answer is bad news, which the exit code tells
    """

    plain: object
    shown: Callable[[], Iterable[RenderableType]]
    bad: bool = False


output_option = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="How it is shown."
)


def show(answer: Answer, output: str, again: bool = False) -> None:
    """`again`: one of many readings: JSON is one line then, YAML one document, and a terminal is cleared first."""
    match output:
        case "json":
            click.echo(json.dumps(answer.plain, indent=None if again else 2))
        case "yaml":
            click.echo(_yaml(answer.plain, again), nl=False)
        case _:
            console = Console()
            if not console.is_terminal:
                console = Console(width=_WIDTH_OF_A_FILE)
            elif again:
                console.clear()
            for one in answer.shown():
                console.print(Text(one) if isinstance(one, str) else one, soft_wrap=isinstance(one, str))


def tells(verb: Callable[..., Answer]) -> Callable[..., None]:
    """Give a verb that asks nobody the options of its answer."""

    @functools.wraps(verb)
    @one_line_errors("gale-ctl")
    def command(output: str, debug: bool, **options: Any) -> None:
        answer = verb(**options)
        show(answer, output)
        if answer.bad:
            sys.exit(BAD)

    return with_options(command, (output_option, debug_option))


def with_options(command: Callable[..., None], options: Iterable[Callable[..., Any]]) -> Callable[..., None]:
    """In this order."""
    for option in reversed(list(options)):
        command = option(command)
    return command


def _yaml(plain: object, again: bool) -> str:
    import yaml  # only who asks for it waits for it

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the quick one, where it was built
    return str(yaml.dump(plain, Dumper=dumper, sort_keys=False, allow_unicode=True, explicit_start=again))
