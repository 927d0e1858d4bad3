"""What the verifiers of older kernels ask for, seen on this one: scripts/kernel-e2e asks Linux 6.1 itself.

A program may cost a million instructions to verify, and an older verifier, which recognises less as already seen, needs
more. And Linux 6.1 takes a loop only if the way back to its start is a jump: LLVM may lay it out such that the end
falls through to the start.
"""

import ctypes
import struct
from collections.abc import Iterator

from gale.dataplane.program import Program
from gale.dataplane.syscall import OBJ_GET_INFO_BY_FD, bpf
from tests.packet.balancer import Balancer
from tests.packet.direct import Direct
from tests.packet.tunnels import Node

VERIFIED_MOST = 600_000

# struct bpf_prog_info of linux/bpf.h: its size, and where fields lie
INFO_SIZE, XLATED_LENGTH, XLATED, VERIFIED = 224, 20, 32, 216
INSTRUCTION = struct.Struct("=BBhi")

# Instruction classes and codes: BPF_JMP, BPF_JMP32; BPF_JA, BPF_CALL, BPF_EXIT
JUMPS = (5, 6)
ALWAYS, CALL, EXIT = 0x00, 0x80, 0x90


def ask(program_fd: int, info: ctypes.Array[ctypes.c_char]) -> bytes:
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program_fd, INFO_SIZE, ctypes.addressof(info)))
    return info.raw


def instructions(program_fd: int) -> list[tuple[int, int, int, int]]:
    """As they run: opcode, registers, offset, number."""
    (length,) = struct.unpack_from("=I", ask(program_fd, ctypes.create_string_buffer(INFO_SIZE)), XLATED_LENGTH)
    code = ctypes.create_string_buffer(length)
    info = ctypes.create_string_buffer(INFO_SIZE)
    struct.pack_into("=I", info, XLATED_LENGTH, length)
    struct.pack_into("=Q", info, XLATED, ctypes.addressof(code))
    ask(program_fd, info)
    return list(INSTRUCTION.iter_unpack(code.raw))


def ways_on(code: list[tuple[int, int, int, int]], at: int) -> Iterator[tuple[int, bool]]:
    """Where it goes on, and whether Linux 6.1 would take that for the way back of a loop."""
    opcode, _, offset, _ = code[at]
    kind = opcode & 0xF0
    if opcode & 7 not in JUMPS or kind == CALL:
        yield at + 1, False
    elif kind == ALWAYS:
        yield at + offset + 1, True
    elif kind != EXIT:
        yield at + 1, True
        yield at + offset + 1, True


def loops_refused(code: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
    """Ways back, found depth first as the verifier does, that are no jumps."""
    refused, done, under_way = [], set(), {0}
    path = [(0, ways_on(code, 0))]
    while path:
        at, ways = path[-1]
        for to, may_go_back in ways:
            if to in under_way and not may_go_back:
                refused.append((at, to))
            elif to not in under_way and to not in done:
                under_way.add(to)
                path.append((to, ways_on(code, to)))
                break
        else:
            under_way.discard(at)
            done.add(at)
            path.pop()
    return refused


def look_at(program: Program) -> None:
    for name, descriptor in program.fds.items():
        (verified,) = struct.unpack_from("=I", ask(descriptor, ctypes.create_string_buffer(INFO_SIZE)), VERIFIED)
        assert 0 < verified <= VERIFIED_MOST, f"{name}: {verified} instructions"
        assert not loops_refused(instructions(descriptor)), name


def test_every_mode_and_version(loaded_direct: Direct) -> None:
    look_at(loaded_direct.program)


def test_the_explainers(loaded_direct: Direct) -> None:
    look_at(loaded_direct.explainers)


def test_smaller_programs(loaded: Balancer, node: Node) -> None:
    """What is left out does not only make it smaller: it is laid out anew."""
    look_at(loaded.program)
    look_at(node.program)


def test_a_loop_whose_end_falls_through() -> None:
    """It is entered behind its end, from which it goes on to where it was entered."""
    assign, end = (0xB7, 0, 0, 0), (0x95, 0, 0, 0)
    enter, leave, back = (0x05, 0, 1, 0), (0x15, 0, 1, 0), (0x05, 0, -3, 0)
    assert loops_refused([enter, assign, leave, back, end]) == [(1, 2)]
    assert not loops_refused([assign, leave, (0x05, 0, -2, 0), end])
