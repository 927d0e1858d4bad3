"""Every call of gale's programs in the documents can be typed: its commands, options, choices and arguments are there.

What is called in a block of code must be whole; what a text names between backquotes may leave arguments out. Usage
lines are understood as they are meant: [optional], this|that, NAME.
"""

import re
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import click
import pytest

from gale.cli.ctl import main as ctl
from gale.cli.lab import main as lab
from gale.cli.lb import main as lb
from gale.cli.node import main as node

ROOT = Path(__file__).parents[2]
PROGRAMS: dict[str, click.Command] = {"gale-ctl": ctl, "gale-lab": lab, "gale-lb": lb, "gale-node": node}
FILES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "cmd").glob("*.toml"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BEFORE = r"^|(?:sudo|do|then|--|[;|(]|&&) |\$\(|=-/usr/local/bin/"
CALL = re.compile(rf"(?:{BEFORE})(gale-(?:ctl|lab|lb|node)) (.*)")
BEYOND = re.compile(r" {2,}| #|;| &&| \|\|?(?= )| >|\)|(?<=\w)['\"]$")
"""What ends a call in a line: a remark, another command, a shell's signs."""


def calls(line: str) -> Iterator[tuple[str, str]]:
    """Program and words of each call in a line, those within others too: gale-lab exec lb-0 -- gale-ctl ..."""
    found = CALL.search(line.strip())
    while found:
        words = BEYOND.split(found[2], maxsplit=1)[0]
        yield found[1], words
        found = CALL.search(found[2])


def named() -> Iterator[tuple[str, str, str, bool]]:
    """Where, program, words, and whether it must be whole."""
    for file in FILES:
        text, name = file.read_text(), str(file.relative_to(ROOT))
        for line in (line for kind, block in BLOCK.findall(text) if not kind for line in block.splitlines()):
            yield from ((name, *call, True) for call in calls(line))
        for code in re.findall(r"`([^`]+)`", BLOCK.sub("", text)):
            yield from ((name, *call, False) for call in calls(" ".join(code.replace("\n#", " ").split())))


def meant(words: str) -> Iterator[list[str]]:
    """Each way to read a usage line, with all that is optional."""
    plain = words.replace("...", " ").replace("…", " ")
    while (shorter := re.sub(r"\[((?:-|[A-Z])[^][]*)\]", r"\1", plain)) != plain:
        plain = shorter
    alternatives = [word.split("|") if re.fullmatch(r"[\w|-]+", word) else [word] for word in shlex.split(plain)]
    yield from (list(each) for each in product(*alternatives))


def unfit(program: str, words: list[str], whole: bool) -> str:
    """What is wrong with a call; empty when nothing is."""
    command, context = PROGRAMS[program], click.Context(PROGRAMS[program], info_name=program)
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(words))
        while isinstance(command, click.Group) and rest:
            name = str(rest[0])
            if name.isupper():
                return ""  # any command
            inner = command.get_command(context, name)
            if inner is None:
                return f"no command {name!r}"
            command, context = inner, click.Context(inner, context, name)
            values, rest, _ = command.make_parser(context).parse_args([str(word) for word in rest[1:]])
    except click.UsageError as error:
        return error.format_message()
    if rest and not isinstance(command, click.Group):
        return f"too many arguments: {rest}"
    return _unfit_values(command, values, whole)


def _unfit_values(command: click.Command, values: dict[str, object], whole: bool) -> str:
    for parameter in command.params:
        given = values.get(str(parameter.name))
        there = isinstance(given, (str, tuple)) and bool(given)
        if whole and isinstance(parameter, click.Argument) and parameter.required and not there:
            return f"{parameter.human_readable_name} is missing"
        choices = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
        if choices and isinstance(given, str) and not given.isupper() and given not in choices:
            return f"{given!r} is none of {', '.join(choices)}"
    return ""


CALLS = sorted(set(named()))


def test_there_are_calls_of_every_program() -> None:
    assert {program for _, program, _, _ in CALLS} == set(PROGRAMS)
    assert len(CALLS) > 100


@pytest.mark.parametrize("file", sorted({file for file, _, _, _ in CALLS}))
def test_what_is_called_can_be_typed(file: str) -> None:
    wrong = [
        f"{program} {words}: {why}"
        for where, program, words, whole in CALLS
        if where == file
        for each in meant(words)
        if (why := unfit(program, each, whole))
    ]
    assert not wrong


@pytest.mark.parametrize(
    "call",
    [
        "gale-ctl node drane web-1",
        "gale-ctl node drain web-1 --wayt",
        "gale-ctl node drain",
        "gale-ctl cluster status -o jsn",
        "gale-ctl counters now",
        "gale-lab exec lb-0 -- gale-ctl cluster states",
        "sudo gale-lb --conf lb.toml",
    ],
)
def test_a_wrong_call_would_be_found(call: str) -> None:
    assert any(unfit(program, each, True) for program, words in calls(call) for each in meant(words))
