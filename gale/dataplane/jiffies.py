"""The kernel's tick, by which the packet path dates what it sees."""

import ctypes
import os
import struct
import time

from gale.dataplane.syscall import PROG_LOAD, bpf
from gale.dataplane.testrun import run_program

_INSTRUCTION = struct.Struct("=BBhi")
_CALL, _EXIT, _JIFFIES64 = 0x85, 0x95, 118
_XDP = 6
_LOAD = struct.Struct("=2I2Q")
"""Of PROG_LOAD: type, number of instructions, where they are, where the licence is."""
_CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; the time module has no name for it


def per_second() -> int:
    """The kernel's tick, which is the resolution of its coarse clock."""
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))


def now() -> int:
    """The low 32 bits, as a program of two instructions returns them: nothing else tells them to user space."""
    code = _INSTRUCTION.pack(_CALL, 0, 0, _JIFFIES64) + _INSTRUCTION.pack(_EXIT, 0, 0, 0)
    program, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    where = ctypes.addressof(program), ctypes.addressof(licence)
    descriptor, _ = bpf(PROG_LOAD, _LOAD.pack(_XDP, len(code) // _INSTRUCTION.size, *where))
    try:
        return run_program(descriptor, bytes(64)).returned
    finally:
        os.close(descriptor)
