"""Disks to test the journal on: one in memory with everything that can happen to a disk, and real ones that fail."""

import errno
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gale.raft.disk import Disk
from gale.raft.journal import Journal

SECTOR = 512
HERE = Path("/state")


class SeededDisk(Disk):
    """A disk in memory. A power cut takes what was not synced, sector by sector; it can be full, or fail a sync."""

    def __init__(self) -> None:
        self.path = HERE
        self._files = {}
        self.full = self.breaks = False
        self.cached: dict[str, bytes] = {}
        self.durable: dict[str, bytes] = {}
        self.unsynced: list[tuple[int, bytes | None]] = []  # of the journal: offset and content, or cut off there
        self.start_again()

    def start_again(self) -> None:
        self._failing: set[str] = set()
        self._lost = False
        self.aside: dict[str, bytes] = {}

    def cut_power(self, chance: random.Random) -> None:
        content = bytearray(self.durable["journal"])
        for offset, written in self.unsynced:
            if written is None:
                del content[chance.choice([offset, len(content)]) :]
                continue
            for start in range(offset // SECTOR * SECTOR, offset + len(written), SECTOR):
                begin, end = max(start, offset), min(start + SECTOR, offset + len(written))
                fate = chance.choice(["there", "there", "zero", "garbled", "absent"])
                if fate != "absent":
                    content.extend(bytes(max(0, end - len(content))))
                    there = written[begin - offset : end - offset]
                    # What is written over itself stays.
                    if content[begin:end] != there:
                        content[begin:end] = {"zero": bytes(end - begin), "garbled": chance.randbytes(end - begin)}.get(
                            fate, there
                        )
        self.durable["journal"] = bytes(content)
        self.cached = dict(self.durable)
        self.unsynced = []

    def read(self, name: str) -> bytes | None:
        return self.cached.get(name)

    def holds(self, name: str) -> bool:
        return name in self.cached

    def write(self, name: str, offset: int, content: bytes) -> None:
        with self._explained(name):
            written = content[: len(content) // 2] if self.full else content
            self.unsynced.append((offset, written))
            before = self.cached[name]
            self.cached[name] = before[:offset].ljust(offset, b"\0") + written + before[offset + len(written) :]
            self._refuse_if(self.full, errno.ENOSPC)
            self._failing.discard(name)

    def truncate(self, name: str, size: int) -> None:
        with self._explained(name):
            self.unsynced.append((size, None))
            self.cached[name] = self.cached[name][:size]

    def sync(self, name: str) -> None:
        with self._explained(name, last=True):
            if self.breaks:
                self.breaks, self.unsynced = False, []  # as Linux does: reported once, then taken for clean
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            content = bytearray(self.durable[name])
            for offset, written in self.unsynced:
                if written is None:
                    del content[offset:]
                else:
                    content[offset : offset + len(written)] = written
            self.durable[name], self.unsynced = bytes(content), []

    def begin(self, name: str) -> None:
        with self._explained(name, harms=False):
            self.aside[name] = b""

    def extend(self, name: str, content: bytes) -> None:
        with self._explained(name, harms=False):
            self._refuse_if(self.full, errno.ENOSPC)
            self.aside[name] += content

    def finish(self, name: str) -> None:
        with self._explained(name):
            self.cached[name] = self.durable[name] = self.aside.pop(name)
        if name == "journal":
            self.unsynced = []

    def abandon(self, name: str) -> None:
        self.aside.pop(name, None)

    def rename(self, name: str, other: str) -> None:
        with self._explained(name):
            for files in (self.cached, self.durable):
                files[other] = files.pop(name)

    def sync_names(self) -> None:
        pass

    @staticmethod
    def _refuse_if(condition: bool, number: int) -> None:
        if condition:
            raise OSError(number, os.strerror(number))


def filled(directory: Path) -> Journal:
    """Six entries of term 3, the first four on the disk, and a vote."""
    journal = Journal(Disk(directory))
    journal.setCurrentTerm(3, "10.0.0.1:4321")
    for index in range(1, 7):
        journal.add(b"command %d" % index * 50, index, 3)
        if index == 4:
            journal.barrier()
    return journal


def add_up_to(journal: Journal, last: int) -> None:
    for index in range(len(journal) + 1, last + 1):
        journal.add(b"x" * 3_000, index, journal.getCurrentTerm())


def left_behind(journal: Journal) -> None:
    """End as a killed process does."""
    journal._disk.close()


def outcome(journal: Journal) -> tuple[object, ...]:
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()


class Died(BaseException):
    """The process or the machine ends here."""


CALLS = ("open", "pwrite", "ftruncate", "fdatasync", "fsync", "rename")


@contextmanager
def dying_at(step: int | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Die at the system call of this number, having written half if it writes; counts the calls if None."""
    made: list[str] = []

    def guarded(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            made.append(name)
            if len(made) - 1 == step:
                if name == "pwrite":
                    descriptor, content, offset = arguments
                    call(descriptor, content[: len(content) // 2], offset)  # type: ignore[index,arg-type]
                raise Died
            return call(*arguments)

        return run

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, guarded(name, getattr(os, name)))
        with suppress(Died):
            yield made


@contextmanager
def mounted(where: Path, *command: str) -> Iterator[None]:
    where.mkdir(exist_ok=True)
    done = subprocess.run([*command, str(where)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


def damage(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 0x10
    file.write_bytes(content)
