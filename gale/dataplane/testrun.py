"""Runs a loaded program on a packet without a network (BPF_PROG_TEST_RUN): for tests, benchmarks and explanations.

The kernel runs the real program on a copy of the packet; nothing is sent, but maps and counters do change. With
`repeat`, every run but the first gets what the one before left of the packet.
"""

import ctypes
import struct
from dataclasses import dataclass

from gale.dataplane.syscall import PROG_TEST_RUN, bpf

_ATTRIBUTE = struct.Struct("=IIIIQQII")
"""prog_fd, retval, data_size_in, data_size_out, data_in, data_out, repeat, duration: the start of union bpf_attr."""

_ROOM_TO_GROW = 256


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """`returned`: XDP_* or TC_ACT_*; `packet`: as the program left it; `duration_ns`: mean of one run, whole ns."""

    returned: int
    packet: bytes
    duration_ns: int


def run_program(program_fd: int, packet: bytes, repeat: int = 1) -> ProgramRun:
    """Run an XDP or TC program on a frame, `repeat` times. Raises OSError: EINVAL for a frame shorter than 14 bytes."""
    data = ctypes.create_string_buffer(packet, len(packet))
    out = ctypes.create_string_buffer(len(packet) + _ROOM_TO_GROW)
    request = _ATTRIBUTE.pack(
        program_fd, 0, len(packet), len(out), ctypes.addressof(data), ctypes.addressof(out), repeat, 0
    )
    _, answer = bpf(PROG_TEST_RUN, request)
    _, returned, _, size, _, _, _, duration_ns = _ATTRIBUTE.unpack_from(answer)
    return ProgramRun(returned, out.raw[:size], duration_ns)
