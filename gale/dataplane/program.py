"""The programs of bpf/, loaded for the settings of this load balancer, and their maps.

    program = load(settings)
    program.public_fd, program.maps["nodes"][7]

What was compiled, now in a child (compiler.py) or once before (kept.py), are instructions. The maps are made here, or
gone on with, and put into the instructions with the late constants (bpf/late.h); then the kernel verifies them. File
descriptors are closed with the objects that own them.
"""

import ctypes
import os
import secrets
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gale.dataplane import jiffies, kept
from gale.dataplane.address import packed
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.compiler import source
from gale.dataplane.layout import Layout
from gale.dataplane.links import interface_index
from gale.dataplane.settings import DataplaneSettings
from gale.dataplane.syscall import create_map, load_program, require_bpf
from gale.errors import DataplaneError

PUBLIC_PROGRAM = "gale_public"
PRIVATE_PROGRAM = "gale_private"
"""Names of the programs in bpf/gale.c and in the kernel, by which gale knows its own."""

FLOW_PLACES_EACH, RETURN_PLACES_EACH, FRAGMENTS = 4, 2, 16384
"""Places in the tables for each flow of the settings, which may be known at a time."""

STRAYS = 1 << 17
"""Flows of l2 and l3 that may be known at a time, in slots that have moved. Another number leaves those behind that an
earlier start has left."""

_NOTHING: Mapping[str, BpfMap] = MappingProxyType({})
_NO_PROGRAMS: Mapping[str, str] = MappingProxyType({})
_NONE_LATE: Mapping[str, int] = MappingProxyType({})
_VERIFIER_LOG = 1 << 24


@dataclass(frozen=True, slots=True)
class Secrets:
    """Random numbers that place flows in their tables, so that nobody outside can aim at a place."""

    first: int
    second: int

    @staticmethod
    def new() -> "Secrets":
        return Secrets(secrets.randbits(64), secrets.randbits(64))


class Program:
    """Loaded programs as file descriptors, by name, and their maps.

    adopted       maps that were there before
    cflags, late  constants they were compiled with, and loaded with
    file          what was taken instead of compiling, if anything was
    """

    def __init__(
        self,
        fds: Mapping[str, int],
        maps: Mapping[str, BpfMap],
        adopted: frozenset[str],
        cflags: tuple[str, ...],
        late: Mapping[str, int],
        file: Path | None,
    ) -> None:
        self.fds = fds
        self.maps = maps
        self.adopted = adopted
        self.cflags = cflags
        self.late = late
        self.file = file
        self.close = weakref.finalize(self, _close, tuple(fds.values()))

    @property
    def public_fd(self) -> int:
        return self.fds[PUBLIC_PROGRAM]

    @property
    def private_fd(self) -> int | None:
        """None when no service needs answers to come back through this machine."""
        return self.fds.get(PRIVATE_PROGRAM)


def load(
    settings: DataplaneSettings,
    text: bytes | None = None,
    extra: Mapping[str, str] = _NO_PROGRAMS,
    adopt: Mapping[str, BpfMap] = _NOTHING,
    secrets: Secrets | None = None,
    modes: Iterable[str] = (),
) -> Program:
    """The packet path. Raises HostError for a machine that cannot, and DataplaneError for a text that is refused.

    `text` stands in for `source()`, and `extra` names more programs in it (-> "xdp" or "tc"): a benchmark adds its own.
    `adopt`: maps to go on with, where their shapes are the same. `secrets`: those that the adopted maps were made with.
    `modes`: beside those of the settings, that flows of earlier listeners ask for.
    """
    require_bpf()
    known = frozenset(modes) | {listener.mode for listener in settings.listeners}
    programs = {PUBLIC_PROGRAM: "xdp", **({PRIVATE_PROGRAM: "tc"} if "l4" in known else {}), **extra}
    late = late_constants(settings, secrets or Secrets.new())
    return load_source(text or source(), constants(settings, known), programs, adopt, late)


def load_source(
    text: bytes,
    cflags: Sequence[str],
    programs: Mapping[str, str],
    adopt: Mapping[str, BpfMap] = _NOTHING,
    late: Mapping[str, int] = _NONE_LATE,
) -> Program:
    """Any text, such as source("decap.c"), and its programs: name -> "xdp" or "tc". Include paths are known.
    `late`: the values of late constants that it uses."""
    require_bpf()
    compiled, file = kept.compiled(text, cflags, programs)
    adopted = frozenset(
        each.name for each in compiled.maps.values() if each.name in adopt and adopt[each.name].layout == each
    )
    maps = {
        number: BpfMap(os.dup(adopt[layout.name].fd), layout) if layout.name in adopted else _new_map(layout)
        for number, layout in compiled.maps.items()
    }
    descriptors = {number: each.fd for number, each in maps.items()}
    fds: dict[str, int] = {}
    try:
        for name, kind in programs.items():
            fds[name] = _new_program(name, kind, compiled.linked(name, descriptors, late))
    except BaseException:
        _close(tuple(fds.values()))
        raise
    return Program(fds, {each.name: each for each in maps.values()}, adopted, tuple(cflags), late, file)


def _new_map(layout: Layout) -> BpfMap:
    shape = layout.kind, layout.key_size, layout.value_size, layout.max_entries, layout.flags
    try:
        return BpfMap(create_map(layout.name, *shape), layout)
    except OSError as error:
        raise DataplaneError(f"bpf/: map {layout.name}: the kernel refuses it: {error.strerror}") from error


def _new_program(name: str, kind: str, instructions: bytes) -> int:
    """A refusal names the verifier's last word, before its statistics."""
    try:
        return load_program(name, kind, instructions)
    except OSError as error:
        buffer = ctypes.create_string_buffer(_VERIFIER_LOG)
        with suppress(OSError):
            os.close(load_program(name, kind, instructions, buffer))
        said = [line.strip() for line in buffer.value.decode(errors="replace").splitlines()]
        words = [line for line in said if line and not line.startswith("processed ")]
        why = words[-1] if words else error.strerror
        raise DataplaneError(f"bpf/: {name}: the kernel refuses it: {why}") from error


def constants(settings: DataplaneSettings, modes: frozenset[str]) -> list[str]:
    """What bpf/abi.h says is given with -D."""
    flows = settings.flows if "l4" in modes else 1
    values = {
        "SERVICES": len(settings.services),
        "SLOTS": settings.slots,
        "FLOW_PLACES": FLOW_PLACES_EACH * flows,
        "RETURN_PLACES": RETURN_PLACES_EACH * flows,
        "FRAGMENTS": FRAGMENTS,
        "STRAYS": STRAYS if modes & {"l2", "l3"} else 1,
        **{f"WITH_{mode.upper()}": int(mode in modes) for mode in ("l2", "l3", "l4")},
        "WITH_IPV6": int(any(":" in listener.address for listener in settings.listeners)),
        "HAS_SOURCE6": int(settings.source_address6 is not None),
        "JIFFIES_PER_S": jiffies.per_second(),
        "LEARNING": jiffies.ticks(settings.learning_s),
    }
    return [f"-D{name}={value}" for name, value in values.items()]


def late_constants(settings: DataplaneSettings, known: Secrets) -> dict[str, int]:
    """The values for bpf/late.h."""
    own6 = packed(settings.source_address6) if settings.source_address6 else bytes(16)
    return {
        "SECRET_0": known.first,
        "SECRET_1": known.second,
        "SOURCE_ADDRESS": _native(packed(settings.source_address)[12:]),
        "SOURCE6_0": _native(own6[:8]),
        "SOURCE6_1": _native(own6[8:]),
        "PUBLIC_IFINDEX": interface_index(settings.public_interface),
    }


def _native(packet_order: bytes) -> int:
    """The number that, stored by this machine, has these bytes."""
    return int.from_bytes(packet_order, sys.byteorder)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
