"""Reads the table of return paths while packets write to it: those of its entries that somebody asks for.

It is read where it lies, a part at a time (farewell.py says why), and each part column by column: what is looked at of
an entry is what was asked for, because there may be millions. What is read may change meanwhile: an entry counts as it
was if its word is of the same version before and after (bpf/flow.h).
"""

import socket
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from gale.dataplane import jiffies
from gale.dataplane.address import packed, version
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.listeners import Known
from gale.dataplane.settings import PROTOCOLS
from gale.dataplane.words import FLAGS_SHIFT, WORD, birth_of, flags, flags_of, quiet_s, same_version
from gale.ports import FlowChoice

_PLACES = 4_096  # of the table that are looked at together
_SHORT, _ADDRESS = 2, 16  # bytes
_STAMP = 0xFFFFFFFF
_LEAD = 1 << 16  # jiffies, a minute or more
_ALL_FLAGS = range(0x100)

Births = Callable[[int], int | None]
"""The birth of the node that has a number now; None if none has."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A choice, as entries can be compared with it. `listeners`: the numbers of those that are meant."""

    choice: FlowChoice
    listeners: Container[int]
    birth: int | None
    prefix: int
    shift: int


def wanted(choice: FlowChoice, entries: Mapping[int, Known], services: tuple[str, ...], births: Births) -> Wanted:
    """`entries`: of the directory of listeners; `services`: in the order that numbers them."""
    meant = {
        number
        for number, known in entries.items()
        if known.mode == "l4"
        and choice.service in ("", service_of(known, services))
        and (choice.clients is None or choice.clients.version == version(known.address))
    }
    birth = None if choice.node is None else births(choice.node)
    return Wanted(choice, meant, birth, *_prefix(choice.clients))


def service_of(known: Known, services: tuple[str, ...]) -> str:
    """Empty when no service has the listener any more."""
    return services[known.service] if known.service < len(services) else ""


class Part:
    """So many entries of the table from one place on: as they were, and as they are."""

    def __init__(self, table: BpfMap, first: int) -> None:
        self.first = first
        self._leaf, self._stride = table.Leaf, table.stride
        count = min(_PLACES, table.max_entries - first)
        self._live = memoryview(table.mmap(first, count))[: count * table.stride]
        self._words = self._live.cast("Q")[table.Leaf.word.offset // WORD :: table.stride // WORD]
        self.words: list[int] = self._words.tolist()
        used, locked = flags()["used"] << FLAGS_SHIFT, flags()["locked"] << FLAGS_SHIFT
        self.used = [place for place, word in enumerate(self.words) if word & used and not word & locked]
        self._copy = memoryview(bytes(self._live) if self.used else b"")

    def shorts(self, field: str) -> list[int]:
        """A field of two bytes, of every entry."""
        numbers = self._copy.cast("H")[getattr(self._leaf, field).offset // _SHORT :: self._stride // _SHORT]
        return numbers.tolist()

    def octets(self, field: str) -> list[int]:
        """A field of one byte, of every entry."""
        return self._copy[getattr(self._leaf, field).offset :: self._stride].tolist()

    def address(self, place: int) -> int:
        """The client's."""
        at = place * self._stride + self._leaf.client.offset
        return int.from_bytes(self._copy[at : at + _ADDRESS])

    def entry(self, place: int) -> Any:
        """A `Leaf`, whose word is the one of the list."""
        leaf = self._leaf.from_buffer_copy(self._copy, place * self._stride)
        leaf.word = self.words[place]
        return leaf

    def stands(self, place: int) -> bool:
        """What was read of the entry belongs together."""
        return same_version(self.words[place], self._words[place])


def parts(table: BpfMap) -> Iterator[Part]:
    yield from (Part(table, first) for first in range(0, table.max_entries, _PLACES))


def chosen(part: Part, meant: Wanted, now: int) -> list[tuple[int, str]]:
    """Place, from the first of the part on, and state of each entry that is meant. `now`: jiffies."""
    if not part.used:
        return []
    choice, listeners = meant.choice, part.shorts("listener")
    places = [place for place in part.used if listeners[place] in meant.listeners]
    if choice.node is not None:
        numbers = part.shorts("number")
        places = [p for p in places if numbers[p] == choice.node and birth_of(part.words[p]) == meant.birth]
    if choice.port:
        ports, port = part.shorts("client_port"), socket.htons(choice.port)
        places = [place for place in places if ports[place] == port]
    if choice.clients:
        places = [place for place in places if part.address(place) >> meant.shift == meant.prefix]
    if not places:
        return []
    protocols, states = part.octets("protocol"), _states()
    found = []
    for place in places:
        word = part.words[place]
        state, limit = states[protocols[place]][flags_of(word)]
        if _quiet(word, now) >= limit:
            state = "ended"
        if choice.state in ("", state):
            found.append((place, state))
    return found


def quiet_for_s(word: int, now: int) -> float:
    """Since the flow was last seen. `word`: of its entry, or the stamp alone; `now`: jiffies."""
    return _quiet(word, now) / jiffies.per_second()


def _quiet(word: int, now: int) -> int:
    """Jiffies. A stamp may be a little later than `now`, which was read before it."""
    ticks = (now - word) & _STAMP
    return 0 if ticks > _STAMP - _LEAD else ticks


@cache
def _states() -> Mapping[int, list[tuple[str, int]]]:
    """Protocol -> for each combination of flags the state, and after how many jiffies without a packet it has ended
    (life_over in bpf/lifetime.h)."""
    known, limits, tick = flags(), quiet_s(), jiffies.per_second()

    def state(protocol: str, seen: int) -> tuple[str, int]:
        if seen & known["ended"]:
            return "ended", 0
        established = bool(seen & known["established"])
        if protocol == "udp":
            lives = "answered" if established or seen & known["answered"] else "unanswered"
        else:
            lives = "established" if established else "opening"
        return "established" if established else "opening", limits[lives] * tick

    return {number: [state(protocol, seen) for seen in _ALL_FLAGS] for protocol, number in PROTOCOLS.items()}


def _prefix(clients: IPv4Network | IPv6Network | None) -> tuple[int, int]:
    """What the first bits of an address in the map must be, and how many bits follow."""
    if clients is None:
        return 0, 8 * _ADDRESS
    shift = clients.max_prefixlen - clients.prefixlen
    return int.from_bytes(packed(str(clients.network_address))) >> shift, shift
