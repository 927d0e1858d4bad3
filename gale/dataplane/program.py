"""The programs of bpf/, loaded for the settings of this load balancer, and their maps.

    program = load(settings)
    program.public_fd, program.maps["nodes"][7]

Compiling happens in a child (compiler.py); what comes back is file descriptors, closed with the objects that own them.
"""

import os
import secrets
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gale.dataplane import jiffies
from gale.dataplane.address import packed
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.compiler import compile_and_load, source
from gale.dataplane.links import interface_index
from gale.dataplane.settings import DataplaneSettings
from gale.dataplane.syscall import require_bpf

PUBLIC_PROGRAM = "gale_public"
PRIVATE_PROGRAM = "gale_private"
"""Names of the programs in bpf/gale.c and in the kernel, by which gale knows its own."""

FLOW_PLACES_EACH, RETURN_PLACES_EACH, FRAGMENTS = 4, 2, 16384
"""Places in the tables for each flow of the settings, which may be known at a time."""

_NOTHING: Mapping[str, BpfMap] = MappingProxyType({})
_NO_PROGRAMS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Secrets:
    """Random numbers that place flows in their tables, so that nobody outside can aim at a place."""

    first: int
    second: int

    @staticmethod
    def new() -> "Secrets":
        return Secrets(secrets.randbits(64), secrets.randbits(64))


class Program:
    """Loaded programs as file descriptors, by name, and their maps. `adopted`: maps that were there before. `cflags`:
    what they were compiled with."""

    def __init__(
        self,
        fds: Mapping[str, int],
        maps: Mapping[str, BpfMap],
        adopted: frozenset[str] = frozenset(),
        cflags: tuple[str, ...] = (),
    ) -> None:
        self.fds = fds
        self.maps = maps
        self.adopted = adopted
        self.cflags = cflags
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
    return load_source(text or source(), constants(settings, secrets or Secrets.new(), known), programs, adopt)


def load_source(
    text: bytes, cflags: Sequence[str], programs: Mapping[str, str], adopt: Mapping[str, BpfMap] = _NOTHING
) -> Program:
    """Any text, such as source("decap.c"), and its programs: name -> "xdp" or "tc". Include paths are known."""
    require_bpf()
    loaded = compile_and_load(text, cflags, programs, {name: (old.fd, old.layout) for name, old in adopt.items()})
    maps = {name: BpfMap(descriptor, layout) for name, (descriptor, layout) in loaded.maps.items()}
    return Program(loaded.programs, maps, loaded.adopted, tuple(cflags))


def constants(settings: DataplaneSettings, known: Secrets, modes: frozenset[str]) -> list[str]:
    """What bpf/abi.h says is given with -D."""
    flows = settings.flows if "l4" in modes else 1
    own6 = packed(settings.source_address6) if settings.source_address6 else bytes(16)
    words6 = {f"SOURCE6_{word}": f"{_native(own6[4 * word : 4 * word + 4])}U" for word in range(4)}
    values = {
        "SERVICES": len(settings.services),
        "SLOTS": settings.slots,
        "FLOWS": flows,
        "FLOW_PLACES": FLOW_PLACES_EACH * flows,
        "RETURN_PLACES": RETURN_PLACES_EACH * flows,
        "FRAGMENTS": FRAGMENTS,
        **{f"WITH_{mode.upper()}": int(mode in modes) for mode in ("l2", "l3", "l4")},
        "WITH_IPV6": int(any(":" in listener.address for listener in settings.listeners)),
        "SOURCE_ADDRESS": f"{_native(packed(settings.source_address)[12:])}U",
        **words6,
        "PUBLIC_IFINDEX": interface_index(settings.public_interface),
        "JIFFIES_PER_S": jiffies.per_second(),
        "SECRET_0": f"{known.first}ULL",
        "SECRET_1": f"{known.second}ULL",
    }
    return [f"-D{name}={value}" for name, value in values.items()]


def _native(packet_order: bytes) -> int:
    """The number that, stored by this machine, has these bytes."""
    return int.from_bytes(packet_order, sys.byteorder)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
