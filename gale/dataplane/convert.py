"""Takes flows over from tables that this build would have made otherwise: other fields, or another size.

Entries are converted field by field, by name. What only the old build knew is left behind, what only the new one knows
is zero: a new field must mean nothing by that. Where the tables are of the same size an entry keeps its place; else the
packet path's own code says where it belongs (bpf/places.c).

It is done twice. First while the old programs forward, which takes a second for a quarter of a million flows; then,
when the new ones do, for what has changed meanwhile, which takes milliseconds. A flow that the new programs have opened
in the meantime is never overwritten.
"""

import struct
import sys
from collections.abc import Iterator, Sequence

from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.compiler import source
from gale.dataplane.layout import fields
from gale.dataplane.program import Program, load_source
from gale.dataplane.testrun import run_program
from gale.dataplane.words import FLAGS_SHIFT, WORD, flags, flags_of

_BLOCK = 1 << 12
_MANY = 1 << 12
_FRAME_HEAD = bytes(14)
_FRAME_ENTRIES = 32  # at most
_WAYS = {"flows": (0, 1, 2, 3), "returns": (0,)}
"""The places an entry may have, from the first one: FLOW_WAYS of bpf/flow.h."""

_KEY = ("client", "client_port", "listener")
"""What both tables call a flow by."""

_PLACES = {"flows": "gale_flow_places", "returns": "gale_return_places"}


def places_program(program: Program) -> Program:
    """With the same constants as the packet path."""
    names, cflags = dict.fromkeys(_PLACES.values(), "xdp"), [*program.cflags, f"-DENTRIES={_FRAME_ENTRIES}"]
    return load_source(source("places.c"), cflags, names, late=program.late)


class Conversion:
    """Of one table. `program`: the new one, by whose constants entries have their places."""

    def __init__(self, old: BpfMap, new: BpfMap, program: Program) -> None:
        self._old, self._new = old, new
        self._from, self._to = old.mmap(), memoryview(new.mmap())
        self._size, self._word = new.stride, new.Leaf.word.offset
        self._seen = bytes(old.stride * old.max_entries)
        had, has = fields(old.Leaf), fields(new.Leaf)
        self._fields = [
            (had[name][0], has[name][0], min(had[name][1], has[name][1])) for name in had.keys() & has.keys()
        ]
        self._put: dict[int, int] = {}
        self._places = None if old.max_entries == new.max_entries else places_program(program)

    def run(self, lost: set[bytes]) -> int:
        """Takes over what is new since the last time; gives how many entries. `lost`: keys of flows that have no return
        path; those that get none are added, and flows with such a key are left behind."""
        held, before = self._from[: len(self._seen)], self._seen
        changed = list(self._changed(held))
        self._seen = held
        image = self._convert(held) if len(changed) > _MANY else None
        known, entries = flags(), []
        for place in changed:
            self._withdraw(place, before)
            entry = (
                bytes(image[place * self._size : (place + 1) * self._size]) if image else self._convert_one(held, place)
            )
            state = flags_of(self._word_of(entry))
            if state & known["used"] and not state & known["locked"] and self._key(entry) not in lost:
                entries.append((place, entry))
        entries.sort(key=lambda each: self._rank(each[1]))
        for (place, entry), first in zip(entries, self._first_places(entries), strict=True):
            if not self._settle(place, entry, first):
                lost.add(self._key(entry))
        return len(entries)

    def _rank(self, entry: bytes) -> int:
        """Who has room first: the established, the opening, those that have ended."""
        known, state = flags(), flags_of(self._word_of(entry))
        return 2 if state & known["ended"] else 0 if state & known["established"] else 1

    def _changed(self, held: bytes) -> Iterator[int]:
        """Places whose entry is not what it was; that it was seen since is no change."""
        size, offset = self._old.stride, self._old.Leaf.word.offset
        stamp = slice(offset, offset + WORD // 2)
        for begin in range(0, len(held), _BLOCK):
            if held[begin : begin + _BLOCK] == self._seen[begin : begin + _BLOCK]:
                continue
            for at in range(begin, min(begin + _BLOCK, len(held)), size):
                if held[at : at + size] == self._seen[at : at + size]:
                    continue
                now, before = bytearray(held[at : at + size]), bytearray(self._seen[at : at + size])
                now[stamp] = before[stamp] = bytes(WORD // 2)
                if now != before:
                    yield at // size

    def _convert(self, held: bytes) -> bytearray:
        """Every entry in its new shape. Columns of bytes are moved, not entries: there are a million."""
        image = bytearray(self._size * self._old.max_entries)
        for source_at, target_at, size in self._fields:
            for byte in range(size):
                image[target_at + byte :: self._size] = held[source_at + byte :: self._old.stride]
        return image

    def _convert_one(self, held: bytes, place: int) -> bytes:
        entry, begin = bytearray(self._size), place * self._old.stride
        for source_at, target_at, size in self._fields:
            entry[target_at : target_at + size] = held[begin + source_at : begin + source_at + size]
        return bytes(entry)

    def _first_places(self, entries: Sequence[tuple[int, bytes]]) -> list[int]:
        if self._places is None:
            return [place for place, _ in entries]
        program, found = self._places.fds[_PLACES[self._new.name]], []
        for begin in range(0, len(entries), _FRAME_ENTRIES):
            part = b"".join(entry for _, entry in entries[begin : begin + _FRAME_ENTRIES])
            answer = run_program(program, _FRAME_HEAD + part).packet[len(_FRAME_HEAD) :]
            found += [self._word_of(answer, at) for at in range(0, len(answer), self._size)]
        return found

    def _withdraw(self, place: int, before: bytes) -> None:
        """What was taken over from this place the last time goes, unless the new programs have changed it since."""
        at = self._put.pop(place, None)
        if at is not None and self._to[at : at + self._size] == self._convert_one(before, place):
            self._to[at + self._word : at + self._word + WORD] = bytes(WORD)

    def _settle(self, place: int, entry: bytes, first: int) -> bool:
        """Into the first place that is free, and there is none with this key. The word comes last: without it there is
        no entry."""
        known, key, free = flags(), self._key(entry), None
        for way in _WAYS[self._new.name] if self._places else (0,):
            at = (first ^ way) * self._size
            there = bytes(self._to[at : at + self._size])
            if not flags_of(self._word_of(there)) & known["used"]:
                free = at if free is None else free
            elif self._key(there) == key:
                word = self._word_of(there) | self._word_of(entry) & known["established"] << FLAGS_SHIFT
                self._to[at + self._word : at + self._word + WORD] = word.to_bytes(WORD, sys.byteorder)
                return True
        if free is None:
            return False
        word = self._word
        self._to[free : free + word] = entry[:word]
        self._to[free + word + WORD : free + self._size] = entry[word + WORD :]
        self._to[free + word : free + word + WORD] = entry[word : word + WORD]
        self._put[place] = free
        return True

    def _key(self, entry: bytes) -> bytes:
        own = self._new.Leaf
        return b"".join(entry[part.offset : part.offset + part.size] for part in (getattr(own, name) for name in _KEY))

    def _word_of(self, entry: bytes, at: int = 0) -> int:
        return int(struct.unpack_from("=Q", entry, at + self._word)[0])
