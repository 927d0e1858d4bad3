"""The journal against a plain list, on a disk that is cut off from power, gets full and fails to sync."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gale.raft.disk import DiskError
from gale.raft.journal import Journal
from gale.raft.records import Entry
from tests.raft.disks import SeededDisk


class JournalMachine(RuleBasedStateMachine):
    """Beside the journal: the list it must equal, how much of it was promised, and the meta that was."""

    @initialize(first=st.integers(1, 1000))
    def begin(self, first: int) -> None:
        self.disk = SeededDisk()
        self.journal = Journal(self.disk)
        self.first = first
        self.entries: list[Entry] = []
        self.promised = 0
        self.term = 0
        self.vote: str | None = None
        self.stored: tuple[int, str | None] = (0, None)
        self.commits = {1}

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is done in here happens to the model only if the disk took it; it may refuse only with a reason."""
        try:
            yield
        except DiskError:
            assert not self.journal.healthy

    @rule(command=st.binary(max_size=1500), term_more=st.integers(0, 1))
    def add(self, command: bytes, term_more: int) -> None:
        index = self.entries[-1][1] + 1 if self.entries else self.first
        term = min(self.term, (self.entries[-1][2] if self.entries else 0) + term_more)
        with self.attempt():
            self.journal.add(command, index, term)
            self.stored = (self.term, self.vote)
            self.entries.append((command, index, term))

    @rule()
    def barrier(self) -> None:
        with self.attempt():
            self.journal.barrier()
            self.stored = (self.term, self.vote)
            self.promised = len(self.entries)

    @rule(back=st.integers(0, 4))
    def delete_from(self, back: int) -> None:
        position = max(0, len(self.entries) - back)
        with self.attempt():
            self.promised = min(self.promised, position)
            self.journal.deleteEntriesFrom(position)
            if back and self.entries:
                self.promised = position
            del self.entries[position:]

    @rule(position=st.integers(0, 6))
    def delete_to(self, position: int) -> None:
        with self.attempt():
            self.journal.deleteEntriesTo(position)
            if position:
                del self.entries[:position]
                self.promised = len(self.entries)

    @rule(first=st.integers(1, 1000))
    def clear(self, first: int) -> None:
        with self.attempt():
            self.journal.clear()
            self.entries, self.promised, self.first = [], 0, first

    @rule(more=st.integers(0, 2), vote=st.none() | st.sampled_from(["10.0.0.1:1", "10.0.0.2:1"]))
    def set_term(self, more: int, vote: str | None) -> None:
        self.term, self.vote = self.term + more, vote
        with self.attempt():
            self.journal.setCurrentTerm(self.term, vote)
            self.stored = (self.term, self.vote)

    @precondition(lambda self: self.entries)
    @rule(back=st.integers(0, 4))
    def commit(self, back: int) -> None:
        position = max(0, len(self.entries) - 1 - back)
        with self.attempt():
            self.journal.setRaftCommitIndex(self.entries[position][1])
            self.commits.add(self.entries[position][1])

    @rule()
    def second(self) -> None:
        self.journal.onOneSecondTimer()
        if not self.disk.full and not self.disk._lost:
            assert self.journal.healthy
            self.stored = (self.term, self.vote)

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        self.disk.full = full

    @rule()
    def break_the_next_sync(self) -> None:
        self.disk.breaks = True

    @rule()
    def kill(self) -> None:
        """The process dies; what it wrote is still in the cache. A refused meta may be gone."""
        self.reopen()

    @rule(chance=st.randoms(use_true_random=False))
    def cut_power(self, chance: random.Random) -> None:
        self.disk.cut_power(chance)
        self.reopen()

    def reopen(self) -> None:
        self.disk.full = self.disk.breaks = False
        self.disk.start_again()
        before = self.entries
        with structlog.testing.capture_logs():
            self.journal = Journal(self.disk)
        self.entries = self.journal[:]
        assert self.entries == before[: len(self.entries)]
        assert len(self.entries) >= self.promised
        self.promised = len(self.entries)
        self.term, self.vote = self.stored
        self.commits.add(self.journal.getRaftCommitIndex())

    @invariant()
    def it_equals_the_model(self) -> None:
        assert self.journal[:] == self.entries
        assert len(self.journal) == len(self.entries)
        assert self.journal[1:3] == self.entries[1:3]
        assert (self.journal.getCurrentTerm(), self.journal.getVotedForNodeId()) == (self.term, self.vote)
        commit = self.journal.getRaftCommitIndex()
        if self.entries:
            assert self.journal[-1] == self.entries[-1]
            assert self.entries[0][1] <= commit <= self.entries[-1][1]
        assert commit in self.commits or commit in (1, *(index for _, index, _ in self.entries[:1] + self.entries[-1:]))


TestModel = JournalMachine.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_what_only_the_cache_had_is_on_the_disk_after_a_start() -> None:
    disk = SeededDisk()
    journal = Journal(disk)
    journal.add(b"command", 1, 0)
    disk.breaks = True
    with pytest.raises(DiskError):
        journal.barrier()
    disk.start_again()
    assert Journal(disk)[:] == [(b"command", 1, 0)]
    disk.cut_power(random.Random(1))
    assert Journal(disk)[:] == [(b"command", 1, 0)]
