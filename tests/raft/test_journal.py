"""What the library and an operator see of the journal: entries, meta, syncs, refusals, descriptors."""

import os
from pathlib import Path

import pytest
import structlog

from gale.errors import HostError
from gale.raft.disk import Disk
from gale.raft.journal import Journal
from gale.raft.records import record
from tests.raft.disks import damage, dying_at, filled, left_behind


def test_a_torn_tail_is_cut_and_told_once(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    expected = journal[:]
    left_behind(journal)
    with open(tmp_path / "journal", "ab") as file:
        file.write(b"\0" * 77)
    with structlog.testing.capture_logs() as told:
        left_behind(Journal(Disk(tmp_path)))
        again = Journal(Disk(tmp_path))
    assert [(line["log_level"], line["bytes"]) for line in told] == [("warning", 77)]
    again.add(b"next", 7, 3)
    again._destroy()
    assert Journal(Disk(tmp_path))[:] == [*expected, (b"next", 7, 3)]


def test_an_empty_directory_and_an_empty_journal_without_meta_are_fresh(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    assert len(Journal(Disk(tmp_path))) == 0


def test_without_a_vote_there_is_none_to_forget(tmp_path: Path) -> None:
    journal = Journal(Disk(tmp_path))
    journal.add(b"\1", 1, 0)
    left_behind(journal)
    assert Journal(Disk(tmp_path))[:] == [(b"\1", 1, 0)]


@pytest.mark.parametrize(("stored", "expected"), [(1, 10), (12, 12), (99, 13)])
def test_the_commit_index_never_lies_outside_the_entries(stored: int, expected: int, tmp_path: Path) -> None:
    journal = Journal(Disk(tmp_path))
    journal.setCurrentTerm(1, None)
    for index in range(10, 14):
        journal.add(b"", index, 1)
    journal.setRaftCommitIndex(stored)
    journal._destroy()
    assert Journal(Disk(tmp_path)).getRaftCommitIndex() == expected


def test_one_sync_a_barrier_and_none_without_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = filled(tmp_path)
    with dying_at(None, monkeypatch) as made:
        for _ in range(3):
            journal.barrier()
        journal.setRaftCommitIndex(6)
        assert made == ["fdatasync", "pwrite"], "the second is the mark"
        journal.add(b"", 7, 3)
        journal.setRaftCommitIndex(6)
        assert made == ["fdatasync", "pwrite", "pwrite"]
        journal.setRaftCommitIndex(7)
        assert len(made) == 3, "what is committed is on the disk before it is applied, not before it is known"
        journal.barrier()
        assert made[3:] == ["fdatasync", "pwrite"]
        journal.onOneSecondTimer()
        journal.onOneSecondTimer()
        assert made[5:] == ["open", "pwrite", "fdatasync", "rename", "fsync"], "meta, once"
        journal.deleteEntriesFrom(5)
        assert made[10:] == ["ftruncate", "fdatasync", "pwrite"]
        journal.deleteEntriesFrom(5)
        journal.deleteEntriesTo(0)
        journal.barrier()
        assert len(made) == 13
    journal._destroy()


def test_entries_that_cannot_follow_are_refused_before_they_are_written(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    for index, term in ((6, 3), (8, 3), (7, 2), (7, 4), (0, 3)):
        with pytest.raises(ValueError, match="cannot follow"):
            journal.add(b"", index, term)
    expected = journal[:]
    journal._destroy()
    assert Journal(Disk(tmp_path))[:] == expected


def test_two_processes_never_share_a_directory(tmp_path: Path) -> None:
    first = Journal(Disk(tmp_path))
    with pytest.raises(HostError, match=rf"^{tmp_path}: in use by another process"):
        Journal(Disk(tmp_path))
    first._destroy()
    first._destroy()
    Journal(Disk(tmp_path))._destroy()


def test_no_descriptor_is_left_and_none_is_inherited(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    journal = filled(tmp_path)
    for descriptor in journal._disk._files.values():
        assert not os.get_inheritable(descriptor)
    journal.deleteEntriesTo(2)
    journal._destroy()
    damage(tmp_path / "journal", 20)
    with pytest.raises(HostError):
        Journal(Disk(tmp_path))
    assert set(os.listdir("/proc/self/fd")) == before
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


def test_no_two_files_have_the_same_salt(tmp_path: Path) -> None:
    """Or the records of an old file, left on the disk, could pass for those of a new one."""
    journal = filled(tmp_path)
    salts = {journal._salt}
    for _ in range(3):
        journal.clear()
        salts.add(journal._salt)
    assert len(salts) == 4


def test_it_reads_what_its_format_says(tmp_path: Path) -> None:
    """The bytes on the disk are an interface to the next version."""
    journal = filled(tmp_path)
    journal._destroy()
    content = (tmp_path / "journal").read_bytes()
    first = record(journal._salt, journal[0], 52)
    assert content[:8] == b"galejnl\x01"
    assert content[8:12] == journal._salt
    assert content[52 : 52 + len(first)] == first


def test_an_epoch_is_given_out_once_whatever_the_clock_says(tmp_path: Path) -> None:
    journal = Journal(Disk(tmp_path))
    assert [journal.begin_epoch(50), journal.begin_epoch(20), journal.begin_epoch(70)] == [50, 51, 70]
    left_behind(journal)
    assert Journal(Disk(tmp_path)).begin_epoch(1) == 71
