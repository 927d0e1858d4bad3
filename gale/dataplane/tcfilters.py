"""The TC filters of an interface as the kernel lists them, with the program each runs, which pyroute2 does not read."""

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from gale.errors import DataplaneError

# linux/netlink.h, rtnetlink.h, pkt_cls.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_MESSAGE = struct.Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, priority and protocol
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_RTM_GETTFILTER = 46
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_NAME, _TCA_BPF_ID = 7, 11
_KIND_MASK = 0x3FFF
_ANSWER_MAX = 1 << 16
_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Filter:
    """`kind` is "bpf" for a program; then `name` is what its owner called it, and `program` the program's id."""

    handle: int
    priority: int
    kind: str
    name: str
    program: int


def list_filters(index: int, parent: int) -> list[Filter]:
    """Those of one direction of an interface, in the order in which packets meet them. Raises DataplaneError."""
    found: list[Filter] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_WITHIN_S)
        body = _MESSAGE.pack(0, index, 0, parent, 0)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETTFILTER, _NLM_F_REQUEST_DUMP, 1, 0) + body)
        while True:
            for kind, message in _messages(kernel.recv(_ANSWER_MAX)):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    raise DataplaneError(f"interface {index}: the kernel does not list its TC filters")
                if entry := _filter(message):
                    found.append(entry)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + length]
        at += -(-length // 4) * 4


def _filter(message: bytes) -> Filter | None:
    """None for the head of a chain of filters, which has no options."""
    _, _, handle, _, info = _MESSAGE.unpack_from(message)
    own = _attributes(message[_MESSAGE.size :])
    if _TCA_OPTIONS not in own or not handle:
        return None
    options = _attributes(own[_TCA_OPTIONS])
    kind, name = (raw.rstrip(b"\0").decode() for raw in (own[_TCA_KIND], options.get(_TCA_BPF_NAME, b"")))
    program = int.from_bytes(options.get(_TCA_BPF_ID, b""), sys.byteorder) if kind == "bpf" else 0
    return Filter(handle, info >> 16, kind, name if kind == "bpf" else "", program)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & _KIND_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, -(-length // 4) * 4)
    return found
