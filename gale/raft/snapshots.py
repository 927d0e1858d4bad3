"""Snapshots of the state: written, kept, sent and received in pieces, so that none of it holds up the loop.

This takes the place of the library's serializer (the camel-case methods are the ones it calls) and differs from it in
what a snapshot is (checked protobuf, gale/rpc/snapshot_codec.py), and in when one is believed: a snapshot that arrives
is read piece by piece while it comes, and only when it is whole and right does it take the place of the one before. One
piece is made and written in a step, and a step is taken with every tick.
"""

from collections.abc import Iterator
from typing import Protocol

import structlog
from pysyncobj.config import SERIALIZER_STATE

from gale.core.state import ClusterState
from gale.raft.disk import Disk, DiskError
from gale.raft.records import Entry

log = structlog.get_logger()

SNAPSHOT = "snapshot"
DAMAGED = "snapshot.damaged"
PART_BYTES = 32 * 1024

Part = tuple[bytes, bool, bool]
"""Content, is the first, is the last (which is empty)."""


class Reader(Protocol):
    """One snapshot on its way in. Both raise ValueError."""

    def feed(self, piece: bytes) -> None: ...
    def finish(self) -> tuple[ClusterState, Entry, Entry]: ...


class Codec(Protocol):
    """`before_last` and `last`: the two newest entries that the state has applied."""

    def encode_snapshot(self, state: ClusterState, before_last: Entry, last: Entry) -> Iterator[bytes]: ...
    def snapshot_reader(self) -> Reader: ...


class Owner(Protocol):
    """The replica whose state is kept."""

    @property
    def state(self) -> ClusterState: ...
    @property
    def applied_index(self) -> int: ...


class Snapshots:
    """`loaded`: what the last snapshot that was read says: the state, before_last, last."""

    def __init__(self, disk: Disk, codec: Codec, owner: Owner) -> None:
        self._disk = disk
        self._codec = codec
        self._owner = owner
        self._content = b""
        self._id = 0
        self._outgoing: Iterator[bytes] | None = None
        self._incoming: Reader | None = None
        self._pieces: list[bytes] = []  # of the one that is being written, ours or one that arrives
        self._sent: dict[object, int] = {}
        self.loaded: tuple[ClusterState, Entry, Entry] | None = None

    def load(self) -> None:
        """Read the one on the disk into `loaded`, None if there is none. Raises ValueError if it is damaged."""
        content = self._disk.read(SNAPSHOT)
        if content is not None:
            reader = self._codec.snapshot_reader()
            reader.feed(content)
            self.loaded = reader.finish()
            self._content = content

    def put_aside(self) -> None:
        """Keep a damaged one for whoever wants to know, under another name."""
        if self._disk.holds(SNAPSHOT):
            self._disk.rename(SNAPSHOT, DAMAGED)

    # what the library calls to take one

    def serialize(self, data: tuple[object, Entry, Entry, object], id: int) -> None:
        """`data`: nothing, the last applied entry, the one before it, and the members, which are not kept here."""
        if self._outgoing is None:
            _, last, before_last, _ = data
            self._incoming = None  # it may have been broken off, and is sent again if it was not
            self._id, self._pieces = id, []
            self._outgoing = self._codec.encode_snapshot(self._owner.state, before_last, last)

    def checkSerializing(self) -> tuple[int, int | None]:
        """Take a step. States are immutable: what is written is the one of the beginning."""
        if self._outgoing is None:
            return SERIALIZER_STATE.NOT_SERIALIZING, None
        try:
            piece = next(self._outgoing, None)
            if piece is not None:
                self._write(piece)
                return SERIALIZER_STATE.SERIALIZING, self._id
            self._disk.finish(SNAPSHOT)
        except DiskError as error:
            log.error("no snapshot was written; the log grows until one is", reason=str(error))
            self._disk.abandon(SNAPSHOT)
            self._outgoing = None
            return SERIALIZER_STATE.FAILED, self._id
        self._outgoing = None
        self._adopt()
        return SERIALIZER_STATE.SUCCESS, self._id

    # what the library calls to send one

    def getTransmissionData(self, transmissionID: object) -> Part | None:
        """The next part for a peer; None while there is no snapshot."""
        if not self._content:
            return None
        offset = self._sent.get(transmissionID, 0)
        data = self._content[offset : offset + PART_BYTES]
        if data:
            self._sent[transmissionID] = offset + len(data)
        else:
            self._sent.pop(transmissionID, None)
        return data, offset == 0, not data

    def cancelTransmisstion(self, id: object) -> None:
        self._sent.pop(id, None)

    # what the library calls when one arrives

    def setTransmissionData(self, data: Part | None) -> bool:
        """Take a part; True when the snapshot is whole, and on the disk, and `loaded`. Raises DiskError."""
        if data is None:
            return False
        content, first, last = data
        if first:
            self._incoming, self._outgoing, self._pieces = self._codec.snapshot_reader(), None, []
        if self._incoming is None:
            return False
        reader, self._incoming = self._incoming, None
        try:
            if content:
                reader.feed(content)
                self._write(content)
            if not last:
                self._incoming = reader
                return False
            loaded = reader.finish()
        except ValueError as error:
            log.error("a snapshot that arrived is damaged and not taken: another is asked for", reason=str(error))
            return False
        if loaded[2][1] <= self._owner.applied_index:
            return False
        self._disk.finish(SNAPSHOT)
        self.loaded = loaded
        self._adopt()
        return True

    def _write(self, piece: bytes) -> None:
        if not self._pieces:
            self._disk.begin(SNAPSHOT)
        self._disk.extend(SNAPSHOT, piece)
        self._pieces.append(piece)

    def _adopt(self) -> None:
        """The snapshot from now on; what was being sent of the one before starts again with this one."""
        self._content, self._pieces = b"".join(self._pieces), []
        self._sent = {}
