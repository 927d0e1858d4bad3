"""The disk under one replica: system calls for a few small files, in a directory that is held exclusively.

What is written is on the disk only after a sync, and a file has its name for certain only after `sync_names`. A whole
file takes the place of another by being written aside as NAME.new, synced and renamed: after a crash it is the old one
or the new one. A large one is written aside in pieces, each synced, so that no single call holds up the loop.

After a sync that failed nothing is certain: Linux reports the error once and then takes the unwritten pages for clean,
so a second sync would succeed and lie. From then on every method raises until the process is started again.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gale.errors import HostError

LOCK = "lock"
NAMES = "."


class DiskError(HostError):
    """The disk refused a write or a sync: nothing that hangs on it may be acknowledged."""


class Disk:
    """Offsets and sizes are in bytes. Methods raise DiskError when the system refuses; HostError: the directory cannot
    be had, or another process holds it. A simulation brings its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self._files: dict[str, int] = {}
        self._failing: set[str] = set()
        self._lost = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"{directory}: cannot hold the log: {error.strerror}") from error
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
        """False from a refused write on until the same file takes one again; for good after a failed sync."""
        return not self._failing and not self._lost

    def read(self, name: str) -> bytes | None:
        """All of a file, which is open from here on; None if there is none. What a crash left aside is removed."""
        with self._explained(name):
            self._aside(name).unlink(missing_ok=True)
            try:
                self._files[name] = os.open(self.path / name, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            with open(self._files[name], "rb", closefd=False) as file:
                return file.read()

    def holds(self, name: str) -> bool:
        """Whether there is such a file; it has been read before."""
        return name in self._files

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
        with self._explained(name):
            try:
                self.begin(name)
                self.extend(name, content)
            except DiskError:
                self.abandon(name)
                raise
            self._failing.discard(name)
        self.finish(name)

    def begin(self, name: str) -> None:
        """Begin to write a new file aside of `name`."""
        self.abandon(name)
        with self._explained(name, harms=False):
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._files[f"{name}.new"] = os.open(self._aside(name), flags, 0o600)

    def extend(self, name: str, content: bytes) -> None:
        """Append to the file that was begun; on the disk when this returns."""
        descriptor = self._files[f"{name}.new"]
        with self._explained(name, harms=False):
            _write(descriptor, os.lseek(descriptor, 0, os.SEEK_END), content)
            os.fdatasync(descriptor)

    def finish(self, name: str) -> None:
        """Give the file that was begun its name, on the disk when this returns."""
        with self._explained(name):
            os.rename(self._aside(name), self.path / name)
        old = self._files.pop(name, None)
        self._files[name] = self._files.pop(f"{name}.new")
        if old is not None:
            os.close(old)
        self.sync_names()

    def abandon(self, name: str) -> None:
        """Forget the file that was begun, if one was."""
        descriptor = self._files.pop(f"{name}.new", None)
        if descriptor is not None:
            os.close(descriptor)
            with suppress(OSError):
                self._aside(name).unlink(missing_ok=True)

    def rename(self, name: str, other: str) -> None:
        """Give a file another name, on the disk when this returns."""
        with self._explained(name):
            os.rename(self.path / name, self.path / other)
        descriptor = self._files.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
        self.sync_names()

    def sync_names(self) -> None:
        """After this, files created and renamed in the directory keep their names."""
        with self._explained(NAMES, last=True):
            os.fsync(self._files[NAMES])

    def demand_trust(self) -> None:
        """Raise if a sync has failed before."""
        if self._lost:
            raise DiskError(f"{self.path}: a sync failed; mend the disk and start this load balancer again")

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def _aside(self, name: str) -> Path:
        return self.path / f"{name}.new"

    @contextmanager
    def _explained(self, name: str, *, last: bool = False, harms: bool = True) -> Iterator[None]:
        """Turn the system's errors into DiskError. `last`: nothing is certain after this one; not `harms`: what failed
        was no more than an attempt."""
        self.demand_trust()
        try:
            yield
        except DiskError:
            if harms:
                self._failing.add(name)
            raise
        except OSError as error:
            if harms:
                self._failing.add(name)
            self._lost = last
            raise DiskError(f"{self.path / name}: {error.strerror}; nothing is acknowledged meanwhile") from error


def _write(descriptor: int, offset: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
