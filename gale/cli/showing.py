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
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from gale.cli.failing import debug_option, one_line_errors

FORMATS = ("table", "json", "yaml")
BAD = 1
"""Exit code of an answer that is bad news."""

_WIDTH_OF_A_FILE = 1_000
"""Lines are not broken where no person looks."""
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
"""Control sequences: the cursor to the first place; what stands behind it is cleared."""


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
    """`again`: one of many readings: JSON is one line then, YAML one document, and a terminal shows it in the place of
    the one before."""
    match output:
        case "json":
            click.echo(json.dumps(answer.plain, indent=None if again else 2))
        case "yaml":
            click.echo(_yaml(answer.plain, again), nl=False)
        case _:
            console, shown = Console(emoji=False), list(answer.shown())  # :cd: in a MAC address is no disc
            console.width = least_width(console, shown) if console.is_terminal else _WIDTH_OF_A_FILE
            with console.capture() as written:
                for one in shown:
                    console.print(Text(one) if isinstance(one, str) else one, soft_wrap=isinstance(one, str))
            click.echo(over(written.get()) if again and console.is_terminal else written.get(), nl=False, color=True)


def least_width(console: Console, shown: Iterable[RenderableType]) -> int:
    """The terminal's width, or what the tables' longest words need where that is more: a terminal breaks lines by
    itself, and half an address is none."""
    return max([console.width, *(_fit(console, one) for one in shown if isinstance(one, Table))])


def _fit(console: Console, table: Table) -> int:
    """Gives the columns of a table that is too wide as much as there is, but each its longest word; what it needs."""
    boundless = console.options.update(max_width=_WIDTH_OF_A_FILE)
    if Measurement.get(console, boundless, table).maximum <= console.width:
        return 0
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    cells = [[Measurement.get(console, boundless, cell) for cell in (it.header, *it.cells)] for it in table.columns]
    most = [max(cell.maximum for cell in column) for column in cells]
    least = [
        most[at] if table.columns[at].no_wrap else max(cell.minimum for cell in column)
        for at, column in enumerate(cells)
    ]
    room = console.width - sum(least) - len(cells) + 1
    wishes = sorted((most[at] - least[at], at) for at in range(len(cells)))
    for left, (wish, at) in zip(range(len(cells), 0, -1), wishes, strict=True):
        given = max(0, min(wish, room // left))
        table.columns[at].width, room = least[at] + given, room - given
    return sum(column.width or 0 for column in table.columns) + len(cells) - 1


def over(text: str) -> str:
    """What a terminal is told so that this takes the place of what it shows: line by line and in one piece, for one
    that was cleared first would flicker."""
    return _HOME + text.replace("\n", f"{_REST_OF_LINE}\n") + _REST_OF_SCREEN


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
