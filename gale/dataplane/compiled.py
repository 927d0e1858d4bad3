"""What compiling makes of a text: for each program its instructions, in which two things are still to be put.

    maps            loads of a map's file descriptor; the number there is the one the map had where it was compiled
    late constants  loads of a placeholder (bpf/late.h): what differs from one start to the next

So the same instructions serve every start. `Compiled` is pure, and can be written to a file: one line with the checksum
of the rest, which is JSON.
"""

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.layout import Layout
from gale.errors import DataplaneError

_MARK = re.compile(r"#define LATE_MARK (0x[0-9a-f]+)ULL")
_LATE = re.compile(r"#define (?P<name>\w+) LATE(?:32)?\((?P<number>\d+)\)")

# linux/bpf.h: an instruction is its code, registers, offset and a number; this one has the number's upper half in the
# next one, and says in the place of a source register what the number stands for
_SIZE = 8
_LOAD_WIDE = 0x18  # BPF_LD | BPF_IMM | BPF_DW
_NUMBER, _MAP = 0, 1  # nothing; BPF_PSEUDO_MAP_FD
_LOW_AT, _HIGH_AT = 4, 12
_HALF = struct.Struct("=I")


@cache
def placeholders() -> dict[str, int]:
    """Name -> what the compiler was given in the place of the late constant."""
    text = (BPF_DIRECTORY / "late.h").read_text()
    mark = next(int(match[1], 16) for match in _MARK.finditer(text))
    return {match["name"]: mark + int(match["number"]) for match in _LATE.finditer(text)}


@dataclass(frozen=True, slots=True)
class Compiled:
    """`maps`: by the number that stands for them in the instructions."""

    maps: Mapping[int, Layout]
    programs: Mapping[str, bytes]

    def linked(self, program: str, maps: Mapping[int, int], late: Mapping[str, int]) -> bytes:
        """The instructions as the kernel wants them. `maps`: number -> file descriptor; `late`: name -> value. Raises
        DataplaneError for a late constant that has no value."""
        names = {placeholder: name for name, placeholder in placeholders().items()}
        linked = bytearray(self.programs[program])
        for at in range(0, len(linked), _SIZE):
            if linked[at] != _LOAD_WIDE:
                continue
            kind, number = linked[at + 1] >> 4, _number(linked, at)
            if kind == _MAP:
                _put(linked, at, maps[number])
            elif kind == _NUMBER and number in names:
                if names[number] not in late:
                    raise DataplaneError(f"bpf/late.h: {program} is loaded without a value for {names[number]}")
                _put(linked, at, late[names[number]])
        return bytes(linked)

    def as_bytes(self) -> bytes:
        values = {
            "maps": {number: layout.as_json() for number, layout in self.maps.items()},
            "programs": {name: code.hex() for name, code in self.programs.items()},
        }
        text = json.dumps(values, separators=(",", ":")).encode()
        return b"%s\n%s" % (hashlib.sha256(text).hexdigest().encode(), text)

    @staticmethod
    def of(data: bytes) -> "Compiled":
        """Raises ValueError for anything but what `as_bytes` has made."""
        checksum, _, text = data.partition(b"\n")
        if checksum != hashlib.sha256(text).hexdigest().encode():
            raise ValueError("its checksum is wrong")
        values = json.loads(text)
        return Compiled(
            {int(number): Layout.of(layout) for number, layout in values["maps"].items()},
            {name: bytes.fromhex(code) for name, code in values["programs"].items()},
        )


def _number(code: bytearray, at: int) -> int:
    low, high = (_HALF.unpack_from(code, at + half)[0] for half in (_LOW_AT, _HIGH_AT))
    return int(low | high << 32)


def _put(code: bytearray, at: int, number: int) -> None:
    _HALF.pack_into(code, at + _LOW_AT, number & 0xFFFFFFFF)
    _HALF.pack_into(code, at + _HIGH_AT, number >> 32)
