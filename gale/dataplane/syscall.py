"""bpf(2), for what BCC has no binding for: running a program on a packet, and asking what a program is called."""

import ctypes
import errno
import os
import platform
import struct

from gale.errors import HostError

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_LIBC = ctypes.CDLL(None, use_errno=True)
_ATTRIBUTE_SIZE = 128

MAP_CREATE = 0
PROG_TEST_RUN = 10
PROG_GET_FD_BY_ID = 13
OBJ_GET_INFO_BY_FD = 15

_MAP_TYPE_ARRAY = 2
_PROG_NAME_OFFSET = 64
"""Of `name`, 16 bytes, in struct bpf_prog_info."""


def bpf(command: int, attribute: bytes) -> tuple[int, bytes]:
    """The call's result, and the attribute as the kernel left it. Raises OSError."""
    if platform.machine() not in _NUMBERS:
        raise HostError(f"processor {platform.machine()}: gale knows bpf(2) on {' and '.join(_NUMBERS)}")
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_SIZE)
    result = _LIBC.syscall(_NUMBERS[platform.machine()], command, buffer, _ATTRIBUTE_SIZE)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result, buffer.raw


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


def program_name(program_id: int) -> str:
    """The name a loaded program has, at most 15 characters. Raises OSError if there is no such program."""
    descriptor, _ = bpf(PROG_GET_FD_BY_ID, struct.pack("=I", program_id))
    try:
        info = ctypes.create_string_buffer(_PROG_NAME_OFFSET + 16)
        bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
        return info.raw[_PROG_NAME_OFFSET:].split(b"\0", 1)[0].decode()
    finally:
        os.close(descriptor)
