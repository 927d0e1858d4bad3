"""Questions to netlink, many at a time, packed here; and what its messages look like.

pyroute2 takes a thread for each conversation and a third of a millisecond for each question (netlink.py). That is
nothing at the start of gale-lb; but how its nodes are reached is asked again and again, for thousands of them, while
everything else waits. Here a question costs some microseconds.

A question has one answer: what was asked for, or an error number, which is 0 when something was done as asked. The
kernel answers before `send` returns, so nothing is waited for. A conversation stays in the network namespace that it
was opened in.
"""

import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

NETLINK_ROUTE = 0
NETLINK_GENERIC = 16
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE = 0x1, 0x4, 0x100, 0x400

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_CODE = struct.Struct("=i")
_TYPE_MASK = 0x3FFF  # of an attribute's type; the other bits say how it is packed
_ALIGN = 4
_NLMSG_ERROR = 2
_BATCH = 32  # their answers have room in the buffer of a socket
_ANSWER_MAX = 32_768
_BUFFER = 1 << 20


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


class Conversation:
    """With one part of the kernel: NETLINK_ROUTE, NETLINK_GENERIC."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._kernel.setblocking(False)
        self._kernel.bind((0, 0))
        self._asked = 0

    def close(self) -> None:
        self._kernel.close()

    def ask(self, *questions: Question) -> list[Answer]:
        return self.ask_all(questions)

    def ask_all(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in order. Raises OSError when the kernel does not talk to us at all."""
        answers = []
        for begin in range(0, len(questions), _BATCH):
            batch = [(self._next_number(), question) for question in questions[begin : begin + _BATCH]]
            self._kernel.sendto(b"".join(_pack(question, number) for number, question in batch), (0, 0))
            answers += [self._answer(number, len(question.head)) for number, question in batch]
        return answers

    def _next_number(self) -> int:
        self._asked = (self._asked + 1) & 0xFFFFFFFF
        return self._asked

    def _answer(self, number: int, head_size: int) -> Answer:
        """Answers to questions that came to nothing, because of an error between, are passed over."""
        while True:
            message = self._kernel.recv(_ANSWER_MAX)
            _, kind, _, sequence, _ = _HEADER.unpack_from(message)
            if sequence == number:
                break
        if kind == _NLMSG_ERROR:
            (code,) = _CODE.unpack_from(message, _HEADER.size)
            return Answer(-code)
        head = _HEADER.size + head_size
        return Answer(0, message[_HEADER.size : head], attributes(message, head))


def _pack(question: Question, number: int) -> bytes:
    body = question.head + b"".join(attribute(kind, value) for kind, value in question.attributes.items())
    return _HEADER.pack(_HEADER.size + len(body), question.kind, question.flags | NLM_F_REQUEST, number, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """As it stands in a message; `value` may be other attributes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % _ALIGN)


def attributes(data: bytes, offset: int = 0, end: int | None = None) -> dict[int, bytes]:
    """Type -> value of those from an offset on."""
    found, end = dict[int, bytes](), len(data) if end is None else end
    while offset + _ATTRIBUTE.size <= end:
        size, name = _ATTRIBUTE.unpack_from(data, offset)
        found[name & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + size]
        offset += max(_ATTRIBUTE.size, size + -size % _ALIGN)
    return found


def number(value: bytes) -> int:
    """An attribute that is one; 0 for one that is not there."""
    return int.from_bytes(value, sys.byteorder)


def messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Of a datagram: type, and begin and end of what follows the header."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size:
            return
        yield kind, offset + _HEADER.size, min(offset + size, len(data))
        offset += size + -size % _ALIGN
