"""The TC filters of an interface as the kernel lists them, with the program each runs, which pyroute2 does not read."""

import socket
import struct
from dataclasses import dataclass

from gale.dataplane.rtnetlink import attributes, messages, number
from gale.errors import DataplaneError

# linux/netlink.h, rtnetlink.h, pkt_cls.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_MESSAGE = struct.Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, priority and protocol
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_RTM_GETTFILTER = 46
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_NAME, _TCA_BPF_ID = 7, 11
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
            answer = kernel.recv(_ANSWER_MAX)
            for kind, begin, end in messages(answer):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    raise DataplaneError(f"interface {index}: the kernel does not list its TC filters")
                if entry := _filter(answer[begin:end]):
                    found.append(entry)


def _filter(message: bytes) -> Filter | None:
    """None for the head of a chain of filters, which has no options."""
    _, _, handle, _, info = _MESSAGE.unpack_from(message)
    own = attributes(message, _MESSAGE.size)
    if _TCA_OPTIONS not in own or not handle:
        return None
    options = attributes(own[_TCA_OPTIONS])
    kind, name = (raw.rstrip(b"\0").decode() for raw in (own[_TCA_KIND], options.get(_TCA_BPF_NAME, b"")))
    program = number(options.get(_TCA_BPF_ID, b"")) if kind == "bpf" else 0
    return Filter(handle, info >> 16, kind, name if kind == "bpf" else "", program)
