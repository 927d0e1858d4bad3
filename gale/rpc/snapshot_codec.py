"""A snapshot as a stream of bytes and back, a little at a time, so that nothing waits while ten thousand nodes pass.

    stream  magic and version (8 bytes), record, record, ...
    record  body's length (4 bytes), CRC (4 bytes), body: a SnapshotRecord of proto/gale/v1/state.proto

Integers are little-endian. Each CRC-32 goes on from the one before it, over the length and the body, so none of the
stream can be changed, left out or moved unnoticed. The last record says that it is the last: a stream that was cut off
anywhere is not whole. What does not check out, or was written by another version, is a ValueError: a snapshot is taken
whole or not at all.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from google.protobuf.message import DecodeError

from gale.core import state as s
from gale.rpc import state_codec as codec
from gale.rpc.v1 import state_pb2 as pb

VERSION = 2
MAGIC = b"galesnp" + bytes([VERSION])
LENGTH, CRC = struct.Struct("<I"), struct.Struct("<I")
RECORD_MAX = 1 << 20
PIECE_BYTES = 32 * 1024
BATCH = 100  # nodes or transitions in a record

T = TypeVar("T")
Entry = tuple[bytes, int, int]
"""Of the log: command, index, term."""


def encode_snapshot(state: s.ClusterState, before_last: Entry, last: Entry) -> Iterator[bytes]:
    """Pieces of about 32 KiB, each made when it is asked for. `before_last`, `last`: the two newest applied entries."""
    crc, piece = zlib.crc32(MAGIC), bytearray(MAGIC)
    for record in _records(state, before_last, last):
        body = record.SerializeToString(deterministic=True)
        length = LENGTH.pack(len(body))
        crc = zlib.crc32(body, zlib.crc32(length, crc))
        piece += length + CRC.pack(crc) + body
        while len(piece) >= PIECE_BYTES:
            yield bytes(piece[:PIECE_BYTES])
            del piece[:PIECE_BYTES]
    if piece:
        yield bytes(piece)


def _records(state: s.ClusterState, before_last: Entry, last: Entry) -> Iterator[pb.SnapshotRecord]:
    yield pb.SnapshotRecord(head=codec.head_to(state, before_last, last))
    for _, load_balancer in sorted(state.load_balancers.items()):
        yield pb.SnapshotRecord(load_balancer=codec.load_balancer_to(load_balancer))
    for names in _batches(sorted(state.nodes)):
        yield pb.SnapshotRecord(nodes=pb.Nodes(nodes=[codec.node_to(state.nodes[name]) for name in names]))
    for name, table in sorted(state.tables.items()):
        yield pb.SnapshotRecord(table=codec.table_to(name, table))
    for transitions in _batches(state.transitions):
        packed = pb.Transitions(transitions=[codec.transition_to(transition) for transition in transitions])
        yield pb.SnapshotRecord(transitions=packed)
    yield pb.SnapshotRecord(end=pb.SnapshotEnd())


def _batches(items: Iterable[T]) -> Iterator[Sequence[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


class SnapshotReader:
    """Takes a stream in pieces that may be cut anywhere. Raises ValueError as soon as something is wrong with it."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._begun = False
        self._ended = False
        self._crc = zlib.crc32(MAGIC)
        self._parts = codec.Parts()

    def feed(self, piece: bytes) -> None:
        self._pending += piece
        if not self._begun and len(self._pending) >= len(MAGIC):
            self._begin()
        start = 0
        try:
            while self._begun and (end := self._record_end(start)):
                self._take(start, end)
                start = end
        finally:
            del self._pending[:start]

    def finish(self) -> tuple[s.ClusterState, Entry, Entry]:
        """The state, and the entries before_last and last."""
        if not self._ended:
            raise ValueError("it is cut off")
        return self._parts.whole()

    def _begin(self) -> None:
        if self._pending[:7] != MAGIC[:7]:
            raise ValueError("it is not a snapshot")
        if self._pending[7] != VERSION:
            raise ValueError(f"it is of version {self._pending[7]}, this gale reads {VERSION}")
        del self._pending[: len(MAGIC)]
        self._begun = True

    def _record_end(self, start: int) -> int:
        """Where the record that begins at `start` ends; 0 while it is not all here."""
        if self._ended and len(self._pending) > start:
            raise ValueError("something follows its end")
        if len(self._pending) - start < LENGTH.size + CRC.size:
            return 0
        (length,) = LENGTH.unpack_from(self._pending, start)
        if length > RECORD_MAX:
            raise ValueError(f"a record of {length} bytes: the most is {RECORD_MAX}")
        end = start + LENGTH.size + CRC.size + int(length)
        return end if end <= len(self._pending) else 0

    def _take(self, start: int, end: int) -> None:
        length, body = self._pending[start : start + 4], bytes(self._pending[start + 8 : end])
        crc = zlib.crc32(body, zlib.crc32(length, self._crc))
        if CRC.unpack_from(self._pending, start + 4)[0] != crc:
            raise ValueError("its checksum is wrong")
        try:
            record = pb.SnapshotRecord.FromString(body)
        except DecodeError as error:
            raise ValueError("a record out of form") from error
        if record.WhichOneof("kind") == "end":
            self._ended = True
        else:
            self._parts.take(record)
        self._crc = crc
