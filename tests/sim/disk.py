"""A disk in memory, under the real gale.raft.disk.Disk's methods: what a crash leaves of it is the point.

`Platter` is the machine's disk and lives through its lives; `SimDisk` is one process's hold of it. What was written and
not synced stays after a kill (the kernel has it) and is decided sector by sector by a power cut: there, zero, garbled
or absent. Names are like that too: of the creations and renames since the directory was last synced, a power cut keeps
the first few.

    slow_s   what a sync takes at most, for a while; the machine stands still meanwhile
    full     writes of what is new are refused, half done
    breaks   the next sync fails, and the kernel forgets what was not synced
"""

import errno
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gale.raft.disk import Disk, DiskError
from tests.sim.loop import Died

SECTOR = 512
SYNC_S = 0.000_3


class File:
    def __init__(self) -> None:
        self.cached = bytearray()
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes | None]] = []  # offset and content; None cuts the file off there

    def write(self, offset: int, content: bytes) -> None:
        _put(self.cached, offset, content)
        self.unsynced.append((offset, content))

    def truncate(self, size: int) -> None:
        del self.cached[size:]
        self.unsynced.append((size, None))

    def sync(self) -> None:
        for offset, content in self.unsynced:
            if content is None:
                del self.durable[offset:]
            else:
                _put(self.durable, offset, content)
        self.unsynced.clear()

    def cut_power(self, chance: random.Random) -> None:
        for offset, content in self.unsynced:
            if content is None:
                if chance.random() < 0.5:
                    del self.durable[offset:]
                continue
            for start in range(offset // SECTOR * SECTOR, offset + len(content), SECTOR):
                begin, end = max(start, offset), min(start + SECTOR, offset + len(content))
                there = content[begin - offset : end - offset]
                fate = chance.choice(("there", "there", "zero", "garbled", "absent"))
                if fate == "absent" or self.durable[begin:end] == there:  # what is written over itself stays
                    continue
                _put(
                    self.durable,
                    begin,
                    {"zero": bytes(end - begin), "garbled": chance.randbytes(end - begin)}.get(fate, there),
                )
        self.unsynced.clear()
        self.cached = bytearray(self.durable)


class Platter:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.slow_s, self.slow_until_s = SYNC_S, 0.0
        self.longest_s = 0.0  # that a turn of the machine may have stood still for syncs so far: a few of the slowest
        self.full = self.breaks = False
        self.dies_in: int | None = None  # the process is killed, or the power cut, at this many system calls from now
        self.names: dict[str, File] = {}
        self.spend: Callable[[float], None] = lambda seconds: None
        self.now_s: Callable[[], float] = lambda: 0.0
        self._durable: dict[str, File] = {}
        self._unsynced: list[tuple[str, str | None, File]] = []  # old name or None, new name or None to unlink

    def file(self, name: str) -> File | None:
        return self.names.get(name)

    def create(self, name: str) -> File:
        self.names[name] = file = File()
        self._unsynced.append((name, name, file))
        return file

    def rename(self, old: str, new: str) -> None:
        _refuse_if(old not in self.names, errno.ENOENT)
        self.names[new] = file = self.names.pop(old)
        self._unsynced.append((old, new, file))

    def unlink(self, name: str) -> None:
        if file := self.names.pop(name, None):
            self._unsynced.append((name, None, file))

    def sync_names(self) -> None:
        self._keep(len(self._unsynced))

    def cut_power(self) -> None:
        self._keep(self.chance.randint(0, len(self._unsynced)))
        self._unsynced.clear()
        self.names = dict(self._durable)
        for name in sorted(self.names):
            self.names[name].cut_power(self.chance)

    def wipe(self) -> None:
        self.names.clear()
        self._durable.clear()
        self._unsynced.clear()

    def damage(self, name: str) -> bool:
        """Turn one bit, in what is on the disk and in what the kernel has of it."""
        file = self.names.get(name)
        if file is None or not file.durable:
            return False
        offset = self.chance.randrange(len(file.durable))
        for content in (file.durable, file.cached):
            if offset < len(content):
                content[offset] ^= 0x10
        return True

    def _keep(self, count: int) -> None:
        for old, new, file in self._unsynced[:count]:
            self._durable.pop(old, None)
            if new is not None:
                self._durable[new] = file
        del self._unsynced[:count]


class SimDisk(Disk):
    """The real one's methods, and its bookkeeping of what failed, over a platter instead of the system's calls."""

    def __init__(self, platter: Platter, where: str) -> None:
        self.path = Path(where)
        self._platter = platter
        self._failing: set[str] = set()
        self._lost = False
        self._gone = False

    @property
    def distrusted(self) -> bool:
        """A sync has failed in this life."""
        return self._lost

    def cut_off(self) -> None:
        """The process has ended: whatever its cleanup code tries has no effect."""
        self._gone = True

    def read(self, name: str) -> bytes | None:
        self._call()
        self._platter.unlink(f"{name}.new")
        file = self._platter.file(name)
        return bytes(file.cached) if file else None

    def holds(self, name: str) -> bool:
        return name in self._platter.names

    def write(self, name: str, offset: int, content: bytes) -> None:
        self._call()
        with self._explained(name):
            self._write(name, offset, content)
            self._failing.discard(name)

    def truncate(self, name: str, size: int) -> None:
        self._call()
        with self._explained(name):
            self._file(name).truncate(size)

    def sync(self, name: str) -> None:
        self._call()
        with self._explained(name, last=True):
            self._sync(name)

    def begin(self, name: str) -> None:
        self.abandon(name)
        self._call()
        with self._explained(name, harms=False):
            _refuse_if(self._platter.full, errno.ENOSPC)
            self._platter.create(f"{name}.new")

    def extend(self, name: str, content: bytes) -> None:
        aside = f"{name}.new"
        with self._explained(name, harms=False):
            self._call()
            self._write(aside, len(self._file(aside).cached), content)
            self._call()
            self._sync(aside)

    def finish(self, name: str) -> None:
        self._call()
        with self._explained(name):
            self._platter.rename(f"{name}.new", name)
        self.sync_names()

    def abandon(self, name: str) -> None:
        if not self._gone:
            with suppress(DiskError):
                self._platter.unlink(f"{name}.new")

    def rename(self, name: str, other: str) -> None:
        self._call()
        with self._explained(name):
            self._platter.rename(name, other)
        self.sync_names()

    def sync_names(self) -> None:
        self._call()
        self._platter.sync_names()

    def close(self) -> None:
        self.cut_off()

    def _call(self) -> None:
        """A system call begins. The process may end right before it."""
        if self._gone:
            raise Died
        if self._platter.dies_in is not None:
            self._platter.dies_in -= 1
            if self._platter.dies_in <= 0:
                self._platter.dies_in = None
                raise Died

    def _write(self, name: str, offset: int, content: bytes) -> None:
        if self._platter.full:
            self._file(name).write(offset, content[: len(content) // 2])
            _refuse_if(True, errno.ENOSPC)
        self._file(name).write(offset, bytes(content))

    def _sync(self, name: str) -> None:
        platter, file = self._platter, self._file(name)
        slow_s = platter.slow_s if platter.now_s() < platter.slow_until_s else SYNC_S
        platter.longest_s = max(platter.longest_s, 4 * slow_s)
        platter.spend(platter.chance.uniform(slow_s / 4, slow_s))
        if platter.breaks:
            platter.breaks = False
            file.unsynced.clear()
            _refuse_if(True, errno.EIO)
        file.sync()

    def _file(self, name: str) -> File:
        file = self._platter.file(name)
        if file is None:
            raise DiskError(f"{self.path / name}: no such file")
        return file


def _put(content: bytearray, offset: int, part: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(part)] = part


def _refuse_if(condition: bool, number: int) -> None:
    if condition:
        raise OSError(number, os.strerror(number))
