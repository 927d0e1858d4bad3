"""The kernel's tick, by which the packet path dates what it sees."""

import os
import struct
import time

from gale.dataplane.syscall import load_program
from gale.dataplane.testrun import run_program
from gale.errors import DataplaneError

_INSTRUCTION = struct.Struct("=BBhi")
_CALL, _EXIT, _JIFFIES64 = 0x85, 0x95, 118
_CODE = _INSTRUCTION.pack(_CALL, 0, 0, _JIFFIES64) + _INSTRUCTION.pack(_EXIT, 0, 0, 0)
_CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; the time module has no name for it


def per_second() -> int:
    """The kernel's tick, which is the resolution of its coarse clock."""
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))


def ticks(seconds: float) -> int:
    return round(seconds * per_second())


def now() -> int:
    """The low 32 bits, as a program of two instructions returns them: nothing else tells them to user space. Raises
    DataplaneError."""
    try:
        descriptor = load_program("jiffies", "xdp", _CODE)
        try:
            return run_program(descriptor, bytes(64)).returned
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataplaneError(f"the kernel does not tell its time: {error.strerror}") from error
