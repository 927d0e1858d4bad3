"""The durable journal under the library: log entries in the file `journal`; term, vote and commit index in `meta`.

What must hold: no message leaves that speaks of an entry, a term or a vote which a power cut could still undo, and no
entry is applied that it could undo. So:

- `add` only writes; `barrier`, called before any message leaves, syncs all that was written with one fdatasync. A
  commit index that rises over unsynced entries calls it too: a cluster of one commits without sending anything.
- A term and a vote are synced before `setCurrentTerm` returns. If that fails, `add` and `barrier` try again first, and
  nothing leaves until it works. The commit index is stored once a second: a stale one only delays.
- Deletion at the end (a conflict with the leader) is synced at once. Otherwise records that were synced before could
  outlive it behind newer ones that were not, and pass for proof of damage.
- Deletion at the front (compaction) and of all (a snapshot came) write a new file aside and rename it: after a crash
  it is the old or the new one, whole. A crash right after `clear` leaves no entry: the library starts at its snapshot.

What the bytes mean, and what is believed of them after a crash, stands in records.py.

When the disk fails (full, broken), the method raises DiskError and the journal is as it was before the call; `healthy`
is False until the same file takes a write again, which is tried once a second. But after a sync that failed nothing is
certain: Linux reports the error once and then takes the unwritten pages for clean, so a second sync would succeed
and lie. From then on every method that promises something raises until the process is started again; the start
rewrites in place what it read, so that what only the page cache had does reach the disk.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import overload

import pysyncobj.journal
import structlog

from gale.errors import HostError
from gale.raft.records import (
    SALT_BYTES,
    Entry,
    Meta,
    damaged,
    decode_meta,
    encode_meta,
    journal,
    mark,
    record,
    recover,
)

log = structlog.get_logger()

JOURNAL = "journal"
META = "meta"
LOCK = "lock"
NAMES = "."


class DiskError(HostError):
    """The disk refused a write or a sync: nothing that hangs on it may be acknowledged."""


class Disk:
    """The system calls under one journal, in a directory held exclusively; a simulation brings its own.

    Offsets and sizes are in bytes. Each method raises DiskError when the system refuses.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory
        self._files: dict[str, int] = {}
        self._failing: set[str] = set()
        self._lost = False
        try:
            with self._explained(LOCK):
                self._files[NAMES] = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._files[LOCK] = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._files[LOCK], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except DiskError as error:
            self.close()
            if isinstance(error.__cause__, BlockingIOError):
                raise HostError(f"{directory}: in use by another process; is this load balancer running?") from error
            raise

    @property
    def healthy(self) -> bool:
        return not self._failing and not self._lost

    def read(self, name: str) -> bytes | None:
        """All of a file, which is open from here on; None if there is none. What a crash left aside is removed."""
        with self._explained(name):
            (self._path / f"{name}.new").unlink(missing_ok=True)
            try:
                self._files[name] = os.open(self._path / name, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            with open(self._files[name], "rb", closefd=False) as file:
                return file.read()

    def write(self, name: str, offset: int, content: bytes) -> None:
        with self._explained(name):
            _write(self._files[name], offset, content)
            self._failing.discard(name)

    def truncate(self, name: str, size: int) -> None:
        with self._explained(name):
            os.ftruncate(self._files[name], size)

    def sync(self, name: str) -> None:
        with self._explained(name, last=True):
            os.fdatasync(self._files[name])

    def replace(self, name: str, content: bytes) -> None:
        """Put a whole new file in the place of `name`, on the disk when this returns."""
        aside = self._path / f"{name}.new"
        with self._explained(name):
            descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write(descriptor, 0, content)
                os.fsync(descriptor)
                os.rename(aside, self._path / name)
            except OSError:
                os.close(descriptor)
                aside.unlink(missing_ok=True)
                raise
            self._failing.discard(name)
        old = self._files.pop(name, None)
        self._files[name] = descriptor
        if old is not None:
            os.close(old)
        self.sync_names()

    def sync_names(self) -> None:
        """After this, files created and renamed in the directory keep their names."""
        with self._explained(NAMES, last=True):
            os.fsync(self._files[NAMES])

    def demand_trust(self) -> None:
        """Raise if a sync has failed before."""
        if self._lost:
            raise DiskError(f"{self._path}: a sync failed; mend the disk and start this load balancer again")

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    @contextmanager
    def _explained(self, name: str, *, last: bool = False) -> Iterator[None]:
        """Turn the system's errors into DiskError. `last`: nothing is certain after this one."""
        self.demand_trust()
        try:
            yield
        except OSError as error:
            self._failing.add(name)
            self._lost = last
            raise DiskError(f"{self._path / name}: {error.strerror}; nothing is acknowledged meanwhile") from error


class Journal(pysyncobj.journal.Journal):
    """The library's journal (its method names are the library's) in `directory`, which must exist.

    Raises HostError if another process holds the directory, if what is in it is damaged, or if it cannot be read.
    """

    def __init__(self, directory: Path, disk: Disk | None = None) -> None:
        self._entries: list[Entry] = []
        self._offsets: list[int] = []  # where each entry's record begins
        self._salt = b""
        self._end = 0  # where the next record begins
        self._synced = 0  # the offset up to which the file is on the disk
        self._synced_index = 0  # the last entry that is
        self._dirty = False
        self._closed = False
        self._meta = self._stored = Meta()  # as it shall be, as it is on the disk
        self._disk = disk or Disk(directory)
        try:
            self._recover(directory)
        except BaseException:
            self._disk.close()
            raise

    @property
    def healthy(self) -> bool:
        """False from a failed write on until the file takes one again; for good after a failed sync."""
        return self._disk.healthy

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append one entry, on the disk after the next `barrier`. ValueError if it cannot follow the last one."""
        if idx < 1 or term > self._meta.term or (self._entries and not self._follows(idx, term)):
            raise ValueError(f"entry {idx} of term {term} cannot follow here")
        self._settle_vote()
        offset = self._end
        self._append(record(self._salt, (command, idx, term), self._synced))
        self._dirty = True
        self._entries.append((command, idx, term))
        self._offsets.append(offset)

    def barrier(self) -> None:
        """Return when all entries, the term and the vote are on the disk; DiskError if that cannot be."""
        self._disk.demand_trust()
        self._settle_vote()
        if self._dirty:
            self._disk.sync(JOURNAL)
            self._vouch()

    def clear(self) -> None:
        self._rewrite([])

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Delete the entries from this position (not index) on; on the disk when this returns."""
        if entryFrom >= len(self._entries):
            return
        end = self._offsets[entryFrom]
        self._disk.truncate(JOURNAL, end)
        self._disk.sync(JOURNAL)
        del self._entries[entryFrom:], self._offsets[entryFrom:]
        self._end = end
        self._vouch()

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Delete the entries before this position (not index); on the disk when this returns."""
        if entryTo > 0:
            self._rewrite(self._entries[entryTo:])

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self._disk.demand_trust()
        if raftCommitIndex > self._synced_index:
            self.barrier()
        self._meta = replace(self._meta, commit=raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        """Never beyond the entries there are: the stored one may be older or, after `clear`, newer than they."""
        if not self._entries:
            return 1
        return max(self._entries[0][1], min(self._meta.commit, self._entries[-1][1]))

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """On the disk when this returns; on DiskError `add` and `barrier` raise it too until it is."""
        self._meta = replace(self._meta, term=term, vote=votedForNodeId)
        self._store_meta()

    def getCurrentTerm(self) -> int:
        return self._meta.term

    def getVotedForNodeId(self) -> str | None:
        return self._meta.vote

    def onOneSecondTimer(self) -> None:
        """Store the commit index, and try a disk that failed. Does not raise: neither is anyone's answer."""
        ailing = not self.healthy
        with suppress(DiskError):
            if ailing:
                self._append(mark(self._salt, self._synced))
            if ailing or self._meta != self._stored:
                self._store_meta()

    def _destroy(self) -> None:
        """Close everything; a second time does nothing. What the disk refuses now was never acknowledged."""
        if not self._closed:
            self._closed = True
            with suppress(DiskError):
                self.barrier()
                if self._meta != self._stored:
                    self._store_meta()
            self._disk.close()

    def _recover(self, directory: Path) -> None:
        content, meta = self._disk.read(JOURNAL), self._disk.read(META)
        if meta is not None:
            self._meta = self._stored = decode_meta(meta, directory / META)
        if content:
            self._load(content, directory / JOURNAL)
        elif meta is None:
            self._rewrite([])
        else:
            raise damaged(directory / JOURNAL, "missing or empty, though this load balancer has voted")
        if self._entries and self._entries[-1][2] > self._meta.term:
            raise damaged(directory / META, "missing, or older than the journal: this load balancer might vote twice")
        self._meta = replace(self._meta, commit=self.getRaftCommitIndex())

    def _load(self, content: bytes, file: Path) -> None:
        found = recover(content, file)
        if found.end < len(content):
            log.warning(
                "the end of the journal was torn and is cut off: it had not been acknowledged",
                file=str(file),
                bytes=len(content) - found.end,
            )
        self._salt, self._entries, self._offsets, self._end = found.salt, found.entries, found.offsets, found.end
        self._disk.write(JOURNAL, 0, content[: found.end])
        self._disk.truncate(JOURNAL, found.end)
        self._disk.sync(JOURNAL)
        self._disk.sync_names()
        self._vouch()

    def _follows(self, index: int, term: int) -> bool:
        return index == self._entries[-1][1] + 1 and term >= self._entries[-1][2]

    def _append(self, content: bytes) -> None:
        """What a refused write left there is no whole record: the next one overwrites it, a start cuts it off."""
        self._disk.write(JOURNAL, self._end, content)
        self._end += len(content)

    def _vouch(self) -> None:
        """After a sync: set the mark. That it fails harms nobody yet, and shows in `healthy`."""
        self._settled()
        with suppress(DiskError):
            self._append(mark(self._salt, self._synced))

    def _rewrite(self, entries: list[Entry]) -> None:
        salt = os.urandom(SALT_BYTES)
        content, offsets = journal(salt, entries)
        self._disk.replace(JOURNAL, content)
        self._salt, self._entries, self._offsets, self._end = salt, entries, offsets, len(content)
        self._settled()

    def _settled(self) -> None:
        """All that is written is on the disk."""
        self._dirty = False
        self._synced = self._end
        self._synced_index = self._entries[-1][1] if self._entries else 0

    def _settle_vote(self) -> None:
        if (self._meta.term, self._meta.vote) != (self._stored.term, self._stored.vote):
            self._store_meta()

    def _store_meta(self) -> None:
        self._disk.replace(META, encode_meta(self._meta))
        self._stored = self._meta


def _write(descriptor: int, offset: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
