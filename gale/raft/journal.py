"""The durable journal under the library: log entries in the file `journal`; term, vote and commit index in `meta`.

What must hold: no message leaves that speaks of an entry, a term or a vote which a power cut could still undo, and no
entry is applied that it could undo. So:

- `add` only writes; `barrier`, called before messages leave and before entries are applied, syncs all that was written
  with one fdatasync.
- A term and a vote are synced before `setCurrentTerm` returns. If that fails, `add` and `barrier` try again first, and
  nothing leaves until it works. The commit index is stored once a second: a stale one only delays.
- Deletion at the end (a conflict with the leader) is synced at once. Otherwise records that were synced before could
  outlive it behind newer ones that were not, and pass for proof of damage.
- Deletion at the front (compaction) and of all (a snapshot came) write a new file aside and rename it: after a crash
  it is the old or the new one, whole. A crash right after `clear` leaves no entry: the library starts at its snapshot.

What the bytes mean, and what is believed of them after a crash, stands in records.py.

When the disk fails (full, broken), the method raises DiskError and the journal is as it was before the call; `healthy`
is False until the same file takes a write again, which is tried once a second. After a sync that failed it is for good
(disk.py); the next start rewrites in place what it read, so that what only the page cache had does reach the disk.
"""

import os
from contextlib import suppress
from dataclasses import replace
from typing import overload

import pysyncobj.journal
import structlog

from gale.raft.disk import Disk, DiskError
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


class Journal(pysyncobj.journal.Journal):
    """The library's journal (its method names are the library's) on a disk that it owns and closes.

    Raises HostError if what is there is damaged, or cannot be read.
    """

    def __init__(self, disk: Disk) -> None:
        self._entries: list[Entry] = []
        self._offsets: list[int] = []  # where each entry's record begins
        self._salt = b""
        self._end = 0  # where the next record begins
        self._synced = 0  # the offset up to which the file is on the disk
        self._dirty = False
        self._closed = False
        self._meta = self._stored = Meta()  # as it shall be, as it is on the disk
        self._disk = disk
        try:
            self._recover()
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

    @property
    def learner(self) -> bool:
        """Whether this replica takes the log without voting; so it begins, and so it is after a loss."""
        return self._meta.learner

    def begin_epoch(self, least: int) -> int:
        """A number for a proposer: at least this, and greater than any that it was given before. On the disk when this
        returns."""
        self._meta = replace(self._meta, epoch=max(self._meta.epoch + 1, least))
        self._store_meta()
        return self._meta.epoch

    def set_learner(self, learner: bool) -> None:
        """On the disk when this returns."""
        self._meta = replace(self._meta, learner=learner)
        self._store_meta()

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

    def _recover(self) -> None:
        directory = self._disk.path
        content, meta = self._disk.read(JOURNAL), self._disk.read(META)
        if meta is not None:
            self._meta = self._stored = decode_meta(meta, directory / META)
        if content:
            self._load(content)
        elif meta is None:
            self._rewrite([])
        else:
            raise damaged(directory / JOURNAL, "missing or empty, though this load balancer has voted")
        if self._entries and self._entries[-1][2] > self._meta.term:
            raise damaged(directory / META, "missing, or older than the journal: this load balancer might vote twice")
        self._meta = replace(self._meta, commit=self.getRaftCommitIndex())

    def _load(self, content: bytes) -> None:
        file = self._disk.path / JOURNAL
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

    def _settle_vote(self) -> None:
        if (self._meta.term, self._meta.vote) != (self._stored.term, self._stored.vote):
            self._store_meta()

    def _store_meta(self) -> None:
        self._disk.replace(META, encode_meta(self._meta))
        self._stored = self._meta
