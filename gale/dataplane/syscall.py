"""bpf(2): the calls, and what the kernel says of programs and maps."""

import ctypes
import errno
import os
import platform
import struct
from contextlib import suppress
from dataclasses import dataclass

from gale.errors import HostError

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_LIBC = ctypes.CDLL(None, use_errno=True)
_ATTRIBUTE_SIZE = 128

# linux/bpf.h, enum bpf_cmd
MAP_CREATE = 0
MAP_LOOKUP_ELEM = 1
MAP_UPDATE_ELEM = 2
MAP_DELETE_ELEM = 3
PROG_LOAD = 5
OBJ_PIN = 6
OBJ_GET = 7
PROG_TEST_RUN = 10
PROG_GET_FD_BY_ID = 13
MAP_GET_FD_BY_ID = 14
OBJ_GET_INFO_BY_FD = 15
MAP_LOOKUP_BATCH = 24
MAP_UPDATE_BATCH = 26
PROG_BIND_MAP = 35

_MAP_TYPE_ARRAY = 2
_MAP_INFO = struct.Struct("=6I16s")
"""The start of struct bpf_map_info: type, id, sizes of key and value, max_entries, flags, name."""
_PROG_INFO = struct.Struct("=II8s2I3Q2IQ16s")
"""The start of struct bpf_prog_info: type, id, ..., nr_map_ids, map_ids, name."""
_NEW_MAP = struct.Struct("=7I16s")
"""Of MAP_CREATE: type, sizes of key and value, max_entries, flags, inner map, NUMA node, name."""
_NEW_PROGRAM = struct.Struct("=2I2Q2IQ2I16s")
"""Of PROG_LOAD: type, number of instructions, instructions, licence, the log's level, size and place, version of the
kernel, flags, name."""
_PROGRAM_TYPES = {"xdp": 6, "tc": 3}
_INSTRUCTION_SIZE = 8
_LICENCE = ctypes.create_string_buffer(b"GPL")
"""The kernel lends its helpers to such programs only (bpf/LICENSE.GPL-2.0)."""
_INTERRUPTIONS_MOST = 4
_NAME_MOST = 15
_OBJECT = struct.Struct("=Q2I")
"""Of OBJ_PIN and OBJ_GET: path, file descriptor, flags."""
_MAPS_MAX = 64
"""That a program may use, as far as gale asks."""


def bpf(command: int, attribute: bytes) -> tuple[int, bytes]:
    """The call's result, and the attribute as the kernel left it. Raises OSError."""
    result, code, answer = try_bpf(command, attribute)
    if code:
        raise OSError(code, os.strerror(code))
    return result, answer


def try_bpf(command: int, attribute: bytes) -> tuple[int, int, bytes]:
    """The same with the error's number, 0 for none: some calls that fail have something to say all the same."""
    if platform.machine() not in _NUMBERS:
        raise HostError(f"processor {platform.machine()}: gale knows bpf(2) on {' and '.join(_NUMBERS)}")
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_SIZE)
    result = _LIBC.syscall(_NUMBERS[platform.machine()], command, buffer, _ATTRIBUTE_SIZE)
    return result, ctypes.get_errno() if result < 0 else 0, buffer.raw


def require_bpf() -> None:
    """Raises HostError unless this process may use BPF here: it makes the smallest map there is, and closes it."""
    try:
        descriptor, _ = bpf(MAP_CREATE, struct.pack("=4I", _MAP_TYPE_ARRAY, 4, 4, 1))
    except OSError as error:
        if error.errno == errno.EPERM:
            raise HostError(
                "BPF is not permitted: run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
            ) from error
        raise HostError(f"BPF does not work on this kernel ({error.strerror}): Linux 6.1 or later is needed") from error
    os.close(descriptor)


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel knows of a map. `name`: at most 15 characters."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel knows of a program. `name`: at most 15 characters; `maps`: ids of those it uses or keeps."""

    id: int
    name: str
    maps: tuple[int, ...]


def map_info(descriptor: int) -> MapInfo:
    kind, number, key, value, entries, flags, name = _MAP_INFO.unpack(_info(descriptor, bytes(_MAP_INFO.size)))
    return MapInfo(kind, number, key, value, entries, flags, _text(name))


def program_info(descriptor: int) -> ProgramInfo:
    ids = (ctypes.c_uint32 * _MAPS_MAX)()
    asked = _PROG_INFO.pack(0, 0, b"", 0, 0, 0, 0, 0, 0, _MAPS_MAX, ctypes.addressof(ids), b"")
    _, number, *_, maps, _, name = _PROG_INFO.unpack(_info(descriptor, asked))
    return ProgramInfo(number, _text(name), tuple(ids[: min(maps, _MAPS_MAX)]))


def create_map(name: str, kind: int, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> int:
    """A file descriptor of a new map. Raises OSError."""
    shape = kind, key_size, value_size, max_entries, flags
    return bpf(MAP_CREATE, _NEW_MAP.pack(*shape, 0, 0, _name(name)))[0]


def load_program(name: str, kind: str, instructions: bytes, log: "ctypes.Array[ctypes.c_char] | None" = None) -> int:
    """A file descriptor of a new program. `kind`: "xdp" or "tc"; `log`: room for what the verifier says. Raises
    OSError."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    where = ctypes.addressof(code), ctypes.addressof(_LICENCE)
    said = (1, len(log), ctypes.addressof(log)) if log else (0, 0, 0)
    count = len(instructions) // _INSTRUCTION_SIZE
    attribute = _NEW_PROGRAM.pack(_PROGRAM_TYPES[kind], count, *where, *said, 0, 0, _name(name))
    for _ in range(_INTERRUPTIONS_MOST):
        with suppress(BlockingIOError):  # a signal came while it was verified
            return bpf(PROG_LOAD, attribute)[0]
    return bpf(PROG_LOAD, attribute)[0]


def pin(descriptor: int, path: str) -> None:
    """Give a map or program a name in a BPF file system. Raises OSError: FileExistsError if the name is taken."""
    text = ctypes.create_string_buffer(path.encode())
    bpf(OBJ_PIN, _OBJECT.pack(ctypes.addressof(text), descriptor, 0))


def pinned(path: str) -> int:
    """A file descriptor of what is pinned there. Raises OSError: FileNotFoundError if nothing is."""
    text = ctypes.create_string_buffer(path.encode())
    return bpf(OBJ_GET, _OBJECT.pack(ctypes.addressof(text), 0, 0))[0]


def bind_map(program: int, descriptor: int) -> None:
    """Let a map live as long as the program, and be found by it, although the program does not use it."""
    bpf(PROG_BIND_MAP, struct.pack("=3I", program, descriptor, 0))


def _info(descriptor: int, asked: bytes) -> bytes:
    info = ctypes.create_string_buffer(asked, len(asked))
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
    return info.raw


def _name(name: str) -> bytes:
    """As much of it as the kernel keeps."""
    return name.encode()[:_NAME_MOST]


def _text(name: bytes) -> str:
    return name.split(b"\0", 1)[0].decode()
