"""The word of an entry of the flow tables, as bpf/flow.h defines it: version, flags, the birth of the node, a stamp."""

import re
from functools import cache

from gale.dataplane.abi import BPF_DIRECTORY

_QUIET = re.compile(r"#define QUIET_(?P<name>[A-Z]+) \((?P<seconds>\d+) \* JIFFIES_PER_S\)")
_FLAG = re.compile(r"#define (?P<name>[A-Z_]+) \(1ULL << \(WORD_FLAGS \+ (?P<bit>\d)\)\)")
_BIRTH_SHIFT, FLAGS_SHIFT, _VERSION_SHIFT = 32, 40, 48
WORD = 8  # bytes


@cache
def flags() -> dict[str, int]:
    """Name in lower case -> the bit, among the eight of a word's flags."""
    text = (BPF_DIRECTORY / "flow.h").read_text()
    return {match["name"].lower(): 1 << int(match["bit"]) for match in _FLAG.finditer(text)}


@cache
def quiet_s() -> dict[str, int]:
    """State in lower case -> for how long a flow in it may be quiet until it is over (bpf/lifetime.h)."""
    text = (BPF_DIRECTORY / "lifetime.h").read_text()
    return {match["name"].lower(): int(match["seconds"]) for match in _QUIET.finditer(text)}


def flags_of(word: int) -> int:
    return word >> FLAGS_SHIFT & 0xFF


def birth_of(word: int) -> int:
    return word >> _BIRTH_SHIFT & 0xFF


def same_version(before: int, after: int) -> bool:
    """Words of one version, neither of them locked, speak of the same flow."""
    locked = flags()["locked"] << FLAGS_SHIFT
    return not (before ^ after) >> _VERSION_SHIFT and not (before | after) & locked


def emptied(word: int) -> int:
    """The word of an entry that stands for nothing any more: of the next version, so that its readers notice."""
    return (word >> _VERSION_SHIFT) + 1 << _VERSION_SHIFT & (1 << 8 * WORD) - 1
