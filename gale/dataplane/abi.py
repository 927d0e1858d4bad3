"""What Python knows of bpf/'s headers, read from the headers: the verdicts, with their actions and meanings.

The shapes of keys and values are not here: BCC derives them from bpf/abi.h (layout.py).
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

import gale

BPF_DIRECTORY = Path(gale.__file__).parent / "bpf"
"""The C sources: a link in a checkout, a folder of the package where a wheel was installed."""

_VERDICT = re.compile(r'VERDICT\((?P<name>[A-Z0-9_]+), (?P<action>[A-Z]+), "(?P<meaning>[^"]+)"\)')


class Action(Enum):
    """What becomes of a packet: sent on, left to this machine's kernel, dropped, or answered with an ICMP error."""

    REDIRECT = "redirect"
    PASS = "pass"
    DROP = "drop"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A line of bpf/verdict.h or bpf/decap.c: `name` in lower case, as counters show it."""

    name: str
    action: Action
    meaning: str


@cache
def verdicts(source: str = "verdict.h") -> tuple[Verdict, ...]:
    """Every verdict that this file of bpf/ lists; its place is its index in the map of counters."""
    text = (BPF_DIRECTORY / source).read_text()
    return tuple(
        Verdict(match["name"].lower(), Action[match["action"]], match["meaning"]) for match in _VERDICT.finditer(text)
    )
