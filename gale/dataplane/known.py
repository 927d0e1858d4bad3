"""Programs and maps by the ids that the kernel tells: what is attached to an interface, which maps a program uses.

The kernel opens them by id for CAP_SYS_ADMIN only, a right to nearly everything. Without it they are looked for among
what gale has pinned, which is all that it ever needs to open: what is not there is somebody else's.
"""

import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from gale.dataplane.syscall import MAP_GET_FD_BY_ID, PROG_GET_FD_BY_ID, bpf, map_info, pinned, program_info

BPF_FS = Path("/sys/fs/bpf")
OWN = BPF_FS / "gale"
PROGRAMS = "programs"
"""The folder of pinned programs, beside the maps that they use."""


def folder_name(interface: str) -> str:
    """Of what belongs to an interface of the calling thread's network namespace. The file system wants no dots."""
    name = interface.replace("%", "%25").replace(".", "%2e")
    return f"{name}-{os.stat('/proc/thread-self/ns/net').st_ino}"


def program_by_id(number: int) -> int:
    """A file descriptor of a loaded program. Raises OSError: PermissionError if it is not to be had here."""
    return _by_id(PROG_GET_FD_BY_ID, number, OWN.glob(f"*/*/{PROGRAMS}/*"), lambda found: program_info(found).id)


def map_by_id(number: int) -> int:
    """A file descriptor of a map. Raises OSError: PermissionError if it is not to be had here."""
    return _by_id(MAP_GET_FD_BY_ID, number, OWN.glob("*/*/[!.]*"), lambda found: map_info(found).id)


def program_name(number: int) -> str:
    """The name of the loaded program with this id; empty for a stranger's that this process may not look at. Raises
    OSError if there is none."""
    try:
        descriptor = program_by_id(number)
    except PermissionError:
        return ""
    try:
        return program_info(descriptor).name
    finally:
        os.close(descriptor)


def _by_id(command: int, number: int, pins: Iterable[Path], identify: Callable[[int], int]) -> int:
    with suppress(PermissionError):
        return bpf(command, struct.pack("=I", number))[0]
    for path in pins:
        if path.is_dir():
            continue
        descriptor = -1
        with suppress(OSError):  # unpinned meanwhile, or not ours to open
            descriptor = pinned(str(path))
            if identify(descriptor) == number:
                return descriptor
        if descriptor >= 0:
            os.close(descriptor)
    raise PermissionError(f"number {number}: not opened without CAP_SYS_ADMIN, and not pinned below {OWN}")
