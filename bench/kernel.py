"""What the kernel's maps of one gale-lb hold, read from outside, without asking it: when a write has truly happened."""

import ctypes
import os
import re
import socket
import struct
from contextlib import suppress
from pathlib import Path

from gale.dataplane.syscall import OBJ_GET_INFO_BY_FD, bpf

MAP_LOOKUP = 1
MAP_FD_BY_ID = 14
NODE_BYTES, ADDRESS_AT = 64, 56  # struct node of bpf/abi.h, and its IPv4 address
NODES = 65_536
NAME_OFFSET = 24  # of `name`, 16 bytes, in struct bpf_map_info


class NodeTable:
    """The map `nodes` of the gale-lb that runs as `pid`. Must be closed."""

    def __init__(self, pid: int) -> None:
        self._fd = _map_of(pid, b"nodes")
        self._value = ctypes.create_string_buffer(NODE_BYTES)

    def address(self, number: int) -> str:
        """The address in a node's entry; "0.0.0.0" when there is no such node."""
        key = ctypes.c_uint32(number)
        attribute = struct.pack("=IIQQQ", self._fd, 0, ctypes.addressof(key), ctypes.addressof(self._value), 0)
        bpf(MAP_LOOKUP, attribute)
        return socket.inet_ntoa(self._value.raw[ADDRESS_AT : ADDRESS_AT + 4])

    def number(self, address: str, most: int = NODES - 1) -> int | None:
        """The number whose entry has this address, among the first `most`."""
        return next((number for number in range(1, most + 1) if self.address(number) == address), None)

    def count(self, most: int = NODES - 1) -> int:
        """How many entries there are among the first `most`."""
        return sum(self.address(number) != "0.0.0.0" for number in range(1, most + 1))

    def close(self) -> None:
        os.close(self._fd)


def _map_of(pid: int, name: bytes) -> int:
    """A file descriptor of the map of that name which a process holds."""
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            if found := re.search(r"^map_id:\s+(\d+)", entry.read_text(), re.MULTILINE):
                descriptor, _ = bpf(MAP_FD_BY_ID, struct.pack("=I", int(found[1])))
                info = ctypes.create_string_buffer(NAME_OFFSET + 16)
                bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
                if info.raw[NAME_OFFSET:].split(b"\0", 1)[0] == name:
                    return descriptor
                os.close(descriptor)
    raise LookupError(f"process {pid} holds no map {name.decode()}")
