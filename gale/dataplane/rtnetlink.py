"""Questions to rtnetlink, many at a time, packed here.

pyroute2 takes a thread for each conversation and a third of a millisecond for each question (netlink.py). That is
nothing at the start of gale-lb; but how its nodes are reached is asked again and again, for thousands of them, while
everything else waits. Here a question costs some microseconds.

A question has one answer: what was asked for, or an error number, which is 0 when something was done as asked. The
kernel answers before `send` returns, so nothing is waited for.
"""

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_CODE = struct.Struct("=i")
_ALIGN = 4
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_BATCH = 32  # their answers have room in the buffer of a socket
_ANSWER_MAX = 8192


@dataclass(frozen=True, slots=True)
class Question:
    """`head`: the struct that follows the message's header, as the kernel defines it for the type `kind`."""

    kind: int
    head: bytes
    attributes: Mapping[int, bytes]
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """`error` is 0 if there is none; else `head` and `attributes` are empty."""

    error: int
    head: bytes = b""
    attributes: Mapping[int, bytes] = field(default_factory=dict)


def ask_all(questions: Sequence[Question]) -> list[Answer]:
    """The answers, in order. Raises OSError when the kernel does not talk to us at all."""
    answers = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        kernel.setblocking(False)
        kernel.bind((0, 0))
        for begin in range(0, len(questions), _BATCH):
            batch = list(enumerate(questions[begin : begin + _BATCH], begin))
            kernel.sendto(b"".join(_pack(question, number) for number, question in batch), (0, 0))
            answers += [_unpack(kernel.recv(_ANSWER_MAX), number, len(question.head)) for number, question in batch]
    return answers


def _pack(question: Question, number: int) -> bytes:
    body = question.head
    for kind, value in question.attributes.items():
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % _ALIGN)
    return _HEADER.pack(_HEADER.size + len(body), question.kind, question.flags | _NLM_F_REQUEST, number, 0) + body


def _unpack(message: bytes, number: int, head_size: int) -> Answer:
    length, kind, _, sequence, _ = _HEADER.unpack_from(message)
    if sequence != number:
        raise OSError(f"rtnetlink answers question {sequence} instead of {number}")
    if kind == _NLMSG_ERROR:
        (code,) = _CODE.unpack_from(message, _HEADER.size)
        return Answer(-code)
    attributes, offset = {}, _HEADER.size + head_size
    head = message[_HEADER.size : offset]
    while offset + _ATTRIBUTE.size <= length:
        size, name = _ATTRIBUTE.unpack_from(message, offset)
        attributes[name] = message[offset + _ATTRIBUTE.size : offset + size]
        offset += max(_ATTRIBUTE.size, size + -size % _ALIGN)
    return Answer(0, head, attributes)
