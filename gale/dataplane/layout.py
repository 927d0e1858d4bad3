"""The shapes of maps, as BCC derives them from the C structs, and as values that outlive the build that made them.

BCC describes a C type as nested lists: ["flow", [["client", ["address", [...], "union"]], ["node", "unsigned short"],
["macs", "unsigned char", [12]]], "struct"]. From such a description come the ctypes that read and write entries, and
the names and places of fields, by which entries of an older build are converted.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from gale.errors import DataplaneError

Description = Any
"""A C type as BCC describes it."""

_NUMBERS: Mapping[str, Any] = {
    "_Bool": ctypes.c_bool,
    "char": ctypes.c_char,
    "unsigned char": ctypes.c_ubyte,
    "short": ctypes.c_short,
    "unsigned short": ctypes.c_ushort,
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "long": ctypes.c_long,
    "unsigned long": ctypes.c_ulong,
    "long long": ctypes.c_longlong,
    "unsigned long long": ctypes.c_ulonglong,
}
_KINDS = ("struct", "union", "struct_packed")
ENUM = "enum"

# linux/bpf.h, enum bpf_map_type
ARRAY, PERCPU_ARRAY, DEVMAP = 2, 6, 14
MMAPABLE = 1 << 10
"""linux/bpf.h, BPF_F_MMAPABLE"""


@dataclass(frozen=True)
class Layout:
    """One map: `kind` as in enum bpf_map_type, sizes in bytes, `key` and `leaf` as BCC describes the two types."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key: Description
    leaf: Description

    @staticmethod
    def of(values: Mapping[str, Any]) -> "Layout":
        return Layout(**values)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @cached_property
    def Key(self) -> Any:
        return ctype(self.key)

    @cached_property
    def Leaf(self) -> Any:
        return ctype(self.leaf)


def ctype(description: Description) -> Any:
    """The ctypes class for a description."""
    if isinstance(description, str):
        if description not in _NUMBERS:
            raise DataplaneError(f"bpf/abi.h: {description!r} is no type that gale reads from a map")
        return _NUMBERS[description]
    name, members, *kind = description
    if kind == [ENUM]:
        return ctypes.c_uint
    base = ctypes.Union if kind == ["union"] else ctypes.Structure
    nameless = [f"nameless{index}" for index, member in enumerate(members) if not member[0]]
    fields = [_field(index, member) for index, member in enumerate(members)]
    packing = {"_pack_": 1} if kind == ["struct_packed"] else {}
    return type(str(name), (base,), {"_anonymous_": nameless, **packing, "_fields_": fields})


def _field(index: int, member: list[Any]) -> tuple[Any, ...]:
    """A member is [name, type], [name, type, [length]], [name, type, bits], or a nameless struct, as a description."""
    name = member[0] or f"nameless{index}"
    if len(member) == 2:
        return name, ctype(member[1])
    third = member[2]
    if third in _KINDS:
        return name, ctype(member)
    if isinstance(third, list):
        return name, ctype(member[1]) * third[0]
    return name, ctype(member[1]), third


def fields(kind: Any) -> dict[str, tuple[int, int]]:
    """Name -> offset and size in bytes of every field of a struct."""
    return {name: (getattr(kind, name).offset, getattr(kind, name).size) for name, *_ in kind._fields_}
