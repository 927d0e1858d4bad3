"""Takes leave of flows that nobody serves any more.

A node that is gone leaves clients behind who wait for it, and do not know. Those who send something are answered with a
reset, by the kernel, because the packet path passes what belongs to a node that is gone. Those who only wait are made
to send something: they get one acknowledgement from the service's address, of a sequence number long past. TCP answers
that with an acknowledgement of its own (RFC 9293, 3.10.7.4), which meets the reset. Nobody has to know the numbers of
the connection for that, and who forges the acknowledgement gains nothing.

The table of return paths knows everything needed: the client, the service, and the frame that the client's packets came
in. It is read where it lies, in slices, because it has room for half a million flows and everything waits meanwhile.
"""

import socket
import struct
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.frames import ACK, PROTOCOL_TCP, TYPE_QINQ, TYPE_VLAN, frame, segment
from gale.dataplane.words import WORD, birth_of, emptied, flags, flags_of

SLICE_S = 0.004
_PLACES = 8_192  # of the table that are looked at together
_SHORT = 2  # bytes of a number of a node, of a listener

_TAGS, _OUTER_8021AD = 3, 4  # bpf/abi.h
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Destination:
    """What clients of a listener send to; the address has 16 bytes, as in the map."""

    address: bytes
    port: int


class Farewell:
    """From the clients of nodes that are gone.

    birth         of the node that has a number now; None if none has
    destinations  of every listener, by its number
    """

    def __init__(
        self,
        returns: BpfMap,
        public_interface: str,
        birth: Callable[[int], int | None],
        destinations: Callable[[], Mapping[int, Destination]],
    ) -> None:
        self._returns = returns
        self._birth = birth
        self._destinations = destinations
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._out.bind((public_interface, 0))
        self._out.setblocking(False)
        self._numbers: set[int] = set()
        self._frames: Iterator[bytes | None] = iter(())
        self._held: bytes | None = None
        self.sent = 0

    def close(self) -> None:
        self._out.close()

    def add(self, number: int) -> None:
        """A node has lost this number. Its clients are looked for by `work`."""
        self._numbers.add(number)

    def take_leave(self, entry: bytes, to: Destination) -> None:
        """Of the client of one return path. Raises OSError: BlockingIOError while the interface is busy."""
        self._out.send(reminder(entry, self._returns, to))

    def work(self, slice_s: float | None = SLICE_S) -> bool:
        """True if some of it is left after that time. Raises OSError when nothing can be sent."""
        end = None if slice_s is None else time.monotonic() + slice_s
        while end is None or time.monotonic() < end:
            try:
                self._held = self._held or next(self._frames)
            except StopIteration:
                if not self._numbers:
                    return False
                numbers, self._numbers = self._numbers, set()
                self._frames = self._walk({number: self._birth(number) for number in numbers}, self._destinations())
                continue
            if self._held:
                try:
                    self._out.send(self._held)
                except BlockingIOError:  # the interface is busy
                    return True
                self.sent += 1
                self._held = None
        return True

    def _walk(
        self, births: Mapping[int, int | None], destinations: Mapping[int, Destination]
    ) -> Iterator[bytes | None]:
        """The frames to send; None now and then, so that the caller can look at the clock."""
        known = flags()
        asked = known["used"] | known["locked"] | known["established"] | known["ended"]
        for memory in entries(self._returns, "number", births):
            if memory is None:
                yield None
                continue
            entry = bytes(memory)
            path = self._returns.Leaf.from_buffer_copy(entry)
            waits = flags_of(path.word) & asked == known["used"] | known["established"]
            orphan = births[path.number] != birth_of(path.word) and path.listener in destinations
            if waits and orphan and path.protocol == PROTOCOL_TCP:
                yield reminder(entry, self._returns, destinations[path.listener])


def reminder(entry: bytes, returns: BpfMap, to: Destination) -> bytes:
    """The frame with the acknowledgement, for the client of this return path."""

    def part(name: str) -> bytes:
        place = getattr(returns.Leaf, name)
        return entry[place.offset : place.offset + place.size]

    (tags,) = part("tags")
    (isn,) = struct.unpack("!I", part("isn"))
    (client_port,) = struct.unpack("!H", part("client_port"))
    head = part("macs")
    for index in range(tags & _TAGS):
        kind = TYPE_QINQ if not index and tags & _OUTER_8021AD else TYPE_VLAN
        head += struct.pack("!H", kind) + part("vlan")[2 * index : 2 * index + 2]
    client, service = part("client"), to.address
    if client.startswith(_MAPPED):
        client, service = client[len(_MAPPED) :], service[len(_MAPPED) :]
    acknowledgement = segment((to.port, client_port), (isn - 1) & 0xFFFFFFFF, 0, ACK)
    return frame(head, service, client, PROTOCOL_TCP, acknowledgement)


def entries(table: BpfMap, field: str, wanted: Container[int]) -> Iterator[memoryview | None]:
    """The memory of each entry whose field, a number of two bytes, is one of these; None after each part of the table.
    Only that part is mapped: to map all of a large table takes tens of milliseconds, and counts as memory of ours."""
    offset, size = getattr(table.Leaf, field).offset // _SHORT, table.stride
    for begin in range(0, table.max_entries, _PLACES):
        count = min(_PLACES, table.max_entries - begin)
        memory = memoryview(table.mmap(begin, count))[: count * size]
        numbers = memory.cast("H")[offset :: size // _SHORT].tolist()
        yield from [memory[at * size : (at + 1) * size] for at, number in enumerate(numbers) if number in wanted]
        yield None


def forget(tables: Iterable[BpfMap], listeners: Container[int]) -> int:
    """Empty every entry of these listeners, which must not be served any more: nobody else writes to such an entry,
    except to take its place. Gives how many there were."""
    found = 0
    for table in tables:
        at = table.Leaf.word.offset // WORD
        for memory in entries(table, "listener", listeners):
            if memory is not None:
                words = memory.cast("Q")
                found += bool(flags_of(words[at]) & flags()["used"])
                words[at] = emptied(words[at])
    return found
