"""What outlives gale-lb: the maps that the attached program uses, and names for them in the BPF file system.

A start goes on with what is there. Where that is follows from one rule: what forwards now is what counts. So the maps
of a program that is attached are asked for by its id, and those that are pinned only count where nothing is attached.
Whatever moment gale-lb was killed at, the one step that decides is the kernel's swap of the XDP program.

Two maps say what the others are. `layout` holds their shapes, which another build may have, and `secrets` the random
numbers that place flows. Both, and the tables that a start goes on with, are bound
to the program, so they live as long as it does, and are found by it. The program is pinned as well, so that a gale-lb
with few rights may open it (known.py).

    /sys/fs/bpf/gale/<interface>-<network namespace>/maps/            the maps; swapped as one folder by a start
    /sys/fs/bpf/gale/<interface>-<network namespace>/maps/programs/   the program that uses them
    /sys/fs/bpf/gale/<interface>-<network namespace>/filter           a note: on which interface gale has a filter
    /sys/fs/bpf/gale/<interface>-<network namespace>/clsact           a note: on which its qdisc is gale's, too
"""

import ctypes
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from gale.dataplane import attach
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.known import BPF_FS, PROGRAMS, folder_name, map_by_id, program_by_id
from gale.dataplane.layout import ARRAY, Layout
from gale.dataplane.namespace import cookie
from gale.dataplane.program import PUBLIC_PROGRAM, Program, Secrets
from gale.dataplane.syscall import (
    bind_map,
    create_map,
    map_info,
    pin,
    pinned,
    program_info,
)
from gale.errors import DataplaneError, HostError

log = structlog.get_logger()

KEPT = ("flows", "returns", "fragments", "strays")
"""Maps that a start goes on with."""

_OF_THE_KERNEL = {"maps.debug", "progs.debug"}
"""What a BPF file system has from the start."""

_DESCRIBED = (*KEPT, "directory", "nodes", "active", "slot_tables")
_LAYOUT = Layout("layout", ARRAY, 4, 1 << 16, 1, 0, "unsigned int", "unsigned char")
_SECRETS = Layout("secrets", ARRAY, 4, 16, 1, 0, "unsigned int", "unsigned long long")
_TWO_NUMBERS = struct.Struct("=2Q")

# linux/magic.h, linux/fs.h, fcntl.h
_BPF_FS_MAGIC = 0xCAFE4A11
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Old:
    """What an earlier start has left: its maps, by name, and the secrets their entries are placed by."""

    maps: Mapping[str, BpfMap]
    secrets: Secrets


class Pins:
    """The folder of one interface. Raises HostError where there is no BPF file system, and none can be made."""

    def __init__(self, interface: str, root: Path = BPF_FS) -> None:
        self._interface = interface
        self._root = root
        self.folder = root / "gale" / folder_name(interface)
        self._maps, self._next = self.folder / "maps", self.folder / "next"

    def find(self) -> Old | None:
        """What is attached, or else what is pinned; None if there is neither, or if nothing says what it is."""
        number = attach.xdp_program_id(self._interface)
        held = self._of_program(number) if number else {}
        return _described(held or self._of_folder())

    def describe(self, program: Program, secrets: Secrets) -> dict[str, BpfMap]:
        """Everything to be pinned: the program's maps, and the two that say what they are, bound to the program."""
        layouts = [program.maps[name].layout.as_json() for name in _DESCRIBED if name in program.maps]
        text = json.dumps({"netns": cookie(), "maps": layouts}, separators=(",", ":")).encode()
        if len(text) > _LAYOUT.value_size:
            raise DataplaneError(f"the shapes of maps take {len(text)} bytes, and {_LAYOUT.value_size} are possible")
        described = {"layout": _LAYOUT, "secrets": _SECRETS}
        made = {name: BpfMap(create_map(*_shape(layout)), layout) for name, layout in described.items()}
        made["layout"].update(0, text.ljust(_LAYOUT.value_size, b"\0"))
        made["secrets"].update(0, _TWO_NUMBERS.pack(secrets.first, secrets.second))
        for each in (*made.values(), *(program.maps[name] for name in KEPT)):
            bind_map(program.public_fd, each.fd)
        return {**program.maps, **made}

    # In the order of a start: a kill after any of them leaves nothing that a next start would mind

    def stage(self, maps: Mapping[str, BpfMap], program: Program) -> None:
        """Give new maps names beside the old ones, and the program."""
        self.mount()
        _remove(self._next)
        (self._next / PROGRAMS).mkdir(parents=True)
        pin(program.public_fd, str(self._next / PROGRAMS / PUBLIC_PROGRAM))
        for name, each in maps.items():
            pin(each.fd, str(self._next / name))

    def publish(self) -> None:
        """The new names become the names, all of them in one step."""
        if not self._maps.exists():
            self._next.rename(self._maps)
            return
        old, new = str(self._next).encode(), str(self._maps).encode()
        if _LIBC.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_EXCHANGE) < 0:
            code = ctypes.get_errno()
            raise DataplaneError(f"{self._maps}: not renamed: {os.strerror(code)}")

    def drop(self) -> None:
        """The old names go."""
        _remove(self._next)

    def note(self, what: str, interface: str) -> None:
        """Remember that something on an interface is gale's; `noted` says so until it is forgotten."""
        self.mount()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.noted(what) != interface:
            self.forget(what)
            (self.folder / what).symlink_to(interface)

    def noted(self, what: str) -> str | None:
        note = self.folder / what
        return str(note.readlink()) if note.is_symlink() else None

    def forget(self, what: str) -> None:
        (self.folder / what).unlink(missing_ok=True)

    def hold(self, maps: Mapping[str, BpfMap]) -> bool:
        """Whether these maps are what is pinned, beside their program."""
        held = self._of_folder()
        if not (self._maps / PROGRAMS / PUBLIC_PROGRAM).exists():
            return False
        try:
            return {name: map_info(each).id for name, each in held.items()} == {
                name: map_info(each.fd).id for name, each in maps.items()
            }
        finally:
            for each in held.values():
                os.close(each)

    def remove(self) -> None:
        """The folder, and what it stands in if nobody else uses that."""
        _remove(self.folder)
        above = self.folder.parent
        mounted = (above / "mounted").is_symlink()
        if above.exists() and {entry.name for entry in above.iterdir()} <= {"mounted"}:
            _remove(above)
            if mounted and {entry.name for entry in self._root.iterdir()} <= _OF_THE_KERNEL:
                _LIBC.umount(str(self._root).encode())

    def mount(self) -> None:
        """See to it that there is a BPF file system. It may be there for gale's part alone."""
        own = self._root / "gale"
        if _is_bpf_fs(own if own.is_dir() else self._root):
            return
        if _LIBC.mount(b"bpf", str(self._root).encode(), b"bpf", 0, None) < 0:
            why = os.strerror(ctypes.get_errno())
            raise HostError(
                f"{self._root}: no BPF file system, and none can be mounted ({why}): mount -t bpf bpf there"
            )
        (self._root / "gale").mkdir(exist_ok=True)
        (self._root / "gale" / "mounted").symlink_to("gale")
        log.info("mounted a BPF file system", at=str(self._root))

    def _of_program(self, number: int) -> dict[str, int]:
        """Name -> file descriptor of the maps of gale's program. What cannot be opened is none of gale's."""
        try:
            descriptor = program_by_id(number)
        except PermissionError:
            return {}
        try:
            info = program_info(descriptor)
        finally:
            os.close(descriptor)
        held = [map_by_id(each) for each in info.maps] if info.name == PUBLIC_PROGRAM else []
        return {map_info(each).name: each for each in held}

    def _of_folder(self) -> dict[str, int]:
        names = [entry.name for entry in self._maps.iterdir() if entry.is_file()] if self._maps.is_dir() else []
        return {name: pinned(str(self._maps / name)) for name in names}


def _described(held: Mapping[str, int]) -> Old | None:
    """Of maps that are only known by name: their shapes. Those of another network namespace do not count."""
    own = {layout.name: layout for layout in (_LAYOUT, _SECRETS)}
    known = {name: BpfMap(held[name], own[name]) for name in own if name in held}
    shapes: dict[str, Layout] = {}
    if len(known) == len(own):
        text = json.loads(bytes(known["layout"].lookup(0) or b"").rstrip(b"\0") or b"{}")
        if text.get("netns") == cookie():
            shapes = {values["name"]: Layout.of(values) for values in text["maps"]}
    maps = {name: BpfMap(held[name], shapes[name]) for name in held if name in shapes}
    for name, descriptor in held.items():
        if name not in known and name not in maps:
            os.close(descriptor)
    if not maps:
        return None
    return Old(maps, Secrets(*_TWO_NUMBERS.unpack(known["secrets"].lookup(0) or b"")))


def _shape(layout: Layout) -> tuple[str, int, int, int, int]:
    return layout.name, layout.kind, layout.key_size, layout.value_size, layout.max_entries


def _is_bpf_fs(path: Path) -> bool:
    buffer = ctypes.create_string_buffer(256)  # struct statfs begins with the type, a long
    if _LIBC.statfs(str(path).encode(), buffer) < 0:
        raise HostError(f"{path}: {os.strerror(ctypes.get_errno())}: sysfs must be mounted, with BPF in the kernel")
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF == _BPF_FS_MAGIC


def _remove(folder: Path) -> None:
    """A folder and all it holds; that there is none is no error."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                _remove(entry)
            else:
                entry.unlink()
        folder.rmdir()
