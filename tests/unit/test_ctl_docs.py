"""docs/GALE-CTL.md and --help tell of every command and option that gale-ctl has, and of none that it has not."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gale.cli.ctl import main

PAGE = Path(__file__).parents[2] / "docs" / "GALE-CTL.md"
EVERYWHERE = {"server", "timeout", "ca", "cert", "key", "debug", "output", "watch", "help"}
"""Options of the page's first table."""
OF_ORDERS = {"why"}
"""Of its section about orders."""


def verbs(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Each command that is no group, by its words."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from verbs(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


VERBS = dict(verbs(main))


def rows() -> dict[str, str]:
    """Each command of the table of commands -> its row."""
    table = PAGE.read_text().split("## Commands")[1].split("\n## ")[0]
    found = {}
    for row in re.findall(r"^\| (`.*)$", table, re.MULTILINE):
        for words in re.findall(r"`([a-z][a-z -]*)", row.split(" | ")[0]):
            found[words.strip()] = row
    return found


def test_every_command_has_a_row_and_every_row_a_command() -> None:
    rows_of = rows()
    assert {name for name in VERBS if not name.startswith("completion")} <= set(rows_of)
    assert {words for words in rows_of if words not in ("zsh", "fish", "completion bash")} <= set(VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_help_says_what_a_command_does_and_what_each_option_means(name: str) -> None:
    command = VERBS[name]
    assert command.help, name
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name}: {parameter.opts}"


@pytest.mark.parametrize("name", [name for name in VERBS if not name.startswith("completion")])
def test_the_options_of_a_command_are_in_its_row(name: str) -> None:
    row = rows()[name]
    for parameter in VERBS[name].params:
        if isinstance(parameter, click.Option) and parameter.name not in EVERYWHERE | OF_ORDERS:
            assert any(option in row for option in parameter.opts if option.startswith("--")), parameter.opts


def test_help_says_when_an_answer_is_bad_news() -> None:
    """Of orders and of what does not ask, --help of gale-ctl itself says it."""
    for name, row in rows().items():
        _, _, bad, *_ = row.split(" | ")
        asks = any(parameter.name == "watch" for parameter in VERBS[name].params) if name in VERBS else False
        if asks and bad.strip(" |"):
            assert "code 1" in (VERBS[name].help or ""), name


def test_a_row_names_no_option_that_its_commands_have_not() -> None:
    rows_of, options = rows(), dict[str, set[str]]()
    for name, command in VERBS.items():
        known = {option for parameter in command.params for option in parameter.opts}
        options.setdefault(rows_of.get(name, ""), set()).update(known)
    for row, known in options.items():
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", row.split(" | ")[0]))
        assert named <= known, row


def test_what_every_command_has_is_on_the_page() -> None:
    common = PAGE.read_text().split("## What every command has")[1].split("\n## ")[0]
    for name in EVERYWHERE - {"output", "help"}:
        assert f"--{name}" in common
    assert "`-o json`" in common
    of_orders = PAGE.read_text().split("## Orders")[1].split("\n## ")[0]
    for name in OF_ORDERS:
        assert f"--{name}" in of_orders
