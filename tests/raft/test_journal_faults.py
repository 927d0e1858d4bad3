"""Death at every system call, damage, a sync that fails, a full disk, a power cut: nothing promised is ever lost."""

import ctypes
import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gale.errors import HostError
from gale.raft.disk import Disk, DiskError
from gale.raft.journal import Journal
from tests.raft.disks import add_up_to, damage, dying_at, filled, left_behind, mounted, outcome


def commit_all(journal: Journal) -> None:
    journal.setRaftCommitIndex(6)
    journal.onOneSecondTimer()


Act = Callable[[Journal], None]
ACTS: dict[str, Act] = {
    "vote": lambda journal: journal.setCurrentTerm(4, "10.0.0.2:4321"),
    "deleteEntriesTo": lambda journal: journal.deleteEntriesTo(3),
    "deleteEntriesFrom": lambda journal: journal.deleteEntriesFrom(3),
    "clear": Journal.clear,
    "barrier": Journal.barrier,
    "commit": commit_all,
    "destroy": Journal._destroy,
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_death_at_every_step_leaves_the_old_or_the_new(
    act: Act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(step: int | None) -> tuple[int, tuple[object, ...], tuple[object, ...], tuple[object, ...]]:
        directory = tmp_path / str(step)
        directory.mkdir()
        journal = filled(directory)
        old = outcome(journal)
        with dying_at(step, monkeypatch) as made:
            act(journal)
        new = outcome(journal)
        left_behind(journal)
        again = Journal(Disk(directory))
        found = outcome(again)
        again._destroy()
        assert sorted(path.name for path in directory.iterdir()) == ["journal", "lock", "meta"]
        return len(made), old, new, found

    steps, old, new, found = attempt(None)
    assert steps
    assert found == new
    seen = []
    for step in range(steps):
        _, _, _, found = attempt(step)
        assert found in (old, new)
        seen.append(found == new)
    assert seen == sorted(seen), "once new, it stays new"


def test_death_at_every_step_of_a_start_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = filled(tmp_path)
    expected = outcome(journal)
    left_behind(journal)
    with open(tmp_path / "journal", "ab") as file:
        file.write(b"torn" * 30)
    torn = (tmp_path / "journal").read_bytes()
    for step in range(30):
        (tmp_path / "journal").write_bytes(torn)
        with dying_at(step, monkeypatch) as made:
            left_behind(Journal(Disk(tmp_path)))
        again = Journal(Disk(tmp_path))
        assert outcome(again) == expected
        left_behind(again)
    assert len(made) < 30


def test_death_at_every_step_of_the_very_first_start_leaves_a_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(20):
        directory = tmp_path / str(step)
        directory.mkdir()
        with dying_at(step, monkeypatch) as made:
            left_behind(Journal(Disk(directory)))
        again = Journal(Disk(directory))
        assert outcome(again) == ([], 0, None)
        assert again.getRaftCommitIndex() == 1
        again._destroy()
    assert len(made) < 20


def test_every_damaged_byte_of_what_was_promised_refuses_to_start(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    journal.barrier()
    synced = journal._synced
    left_behind(journal)
    for name, size in (("journal", synced), ("meta", (tmp_path / "meta").stat().st_size)):
        for offset in range(0, size, 7):
            damage(tmp_path / name, offset)
            with pytest.raises(HostError, match=rf"^{tmp_path}/{name}: .*damaged.* move {tmp_path} aside"):
                Journal(Disk(tmp_path))
            damage(tmp_path / name, offset)
    assert len(Journal(Disk(tmp_path))) == 6


def test_a_vote_that_may_have_been_forgotten_refuses_to_start(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    older = (tmp_path / "meta").read_bytes()
    journal.setCurrentTerm(4, None)
    journal.add(b"", 7, 4)
    left_behind(journal)
    (tmp_path / "meta").write_bytes(older)
    for _ in range(2):
        with pytest.raises(HostError, match="vote twice"):
            Journal(Disk(tmp_path))
        (tmp_path / "meta").unlink(missing_ok=True)


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["missing", "empty"])
def test_a_journal_that_was_lost_whole_refuses_to_start(lose: Callable[[Path], None], tmp_path: Path) -> None:
    left_behind(filled(tmp_path))
    lose(tmp_path / "journal")
    with pytest.raises(HostError, match="journal: missing or empty"):
        Journal(Disk(tmp_path))


def test_after_a_failed_sync_nothing_is_promised_until_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = filled(tmp_path)

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        with pytest.raises(DiskError, match="Input/output error"):
            journal.barrier()
    acts: list[Callable[[], None]] = [
        journal.barrier,
        journal.clear,
        lambda: journal.setRaftCommitIndex(6),
        lambda: journal.setRaftCommitIndex(1),
        lambda: journal.add(b"", 7, 3),
        lambda: journal.setCurrentTerm(4, None),
    ]
    for act in acts:
        with pytest.raises(DiskError, match="start this load balancer again"):
            act()
    journal.onOneSecondTimer()
    assert not journal.healthy
    journal._destroy()
    again = Journal(Disk(tmp_path))
    assert again.healthy
    assert len(again) == 6


def test_a_vote_the_disk_refused_holds_everything_back_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = filled(tmp_path)

    def fails(*paths: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        acts: list[Callable[[], None]] = [
            lambda: journal.setCurrentTerm(4, "10.0.0.2:4321"),
            journal.barrier,
            lambda: journal.add(b"", 7, 4),
        ]
        for act in acts:
            with pytest.raises(DiskError, match="No space left on device"):
                act()
            assert not journal.healthy
    journal.barrier()
    assert journal.healthy
    left_behind(journal)
    assert outcome(Journal(Disk(tmp_path)))[1:] == (4, "10.0.0.2:4321")


def test_a_full_disk_refuses_and_recovers_alone_when_there_is_space_again(tmp_path: Path) -> None:
    place = tmp_path / "small"
    with mounted(place, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        journal = Journal(Disk(place))
        journal.setCurrentTerm(1, None)
        ballast = place / "ballast"
        ballast.write_bytes(bytes(20_000))
        with pytest.raises(DiskError, match=rf"^{place}/journal: No space left on device"):
            add_up_to(journal, 100)
        assert not journal.healthy
        journal.barrier()
        with pytest.raises(DiskError):
            journal.setCurrentTerm(2, "10.0.0.2:4321")
        with pytest.raises(DiskError):
            journal.barrier()
        journal.onOneSecondTimer()
        assert not journal.healthy
        kept = journal[:]
        assert len(kept) > 3
        ballast.unlink()
        journal.onOneSecondTimer()
        assert journal.healthy
        journal.add(b"y", len(kept) + 1, 2)
        journal.barrier()
        left_behind(journal)
        again = Journal(Disk(place))
        assert outcome(again) == ([*kept, (b"y", len(kept) + 1, 2)], 2, "10.0.0.2:4321")
        again._destroy()


FS_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING = ctypes.c_uint32(2)


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="mkfs.ext4 is not installed")
def test_a_real_power_cut_under_ext4_takes_only_what_was_not_promised(tmp_path: Path) -> None:
    image, place = tmp_path / "image", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    mount = ("mount", "-o", "loop", str(image))
    with mounted(place, *mount):
        journal = Journal(Disk(place))
        journal.setCurrentTerm(7, "10.0.0.1:4321")
        for index in range(1, 401):
            journal.add(b"command %d" % index, index, 7)
            if index == 300:
                journal.deleteEntriesTo(100)
            if index % 50 == 25:
                journal.barrier()
        promised = journal[: 375 - 100]
        root = os.open(place, os.O_RDONLY)
        fcntl.ioctl(root, FS_IOC_SHUTDOWN, WITHOUT_FLUSHING)
        os.close(root)
        with pytest.raises(DiskError):
            journal.barrier()
        assert not journal.healthy
        left_behind(journal)
    with mounted(place, *mount):
        again = Journal(Disk(place))
        assert again[: len(promised)] == promised
        assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (7, "10.0.0.1:4321")
        again._destroy()
