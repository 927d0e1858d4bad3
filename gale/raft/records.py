"""What the files `journal` and `meta` hold, byte by byte, and what to believe of them after a crash. Pure.

    journal  header, record, record, ...
    header   magic and version (8 bytes), salt (4 bytes), CRC of the two
    record   salt (4 bytes), CRC of what follows, command's length, index, term, synced, command
    meta     magic and version (8 bytes), CRC of what follows, term, commit index, epoch, learner (1 byte), has voted
             (1 byte), vote (UTF-8)

Integers are little-endian; lengths and CRC-32s have 4 bytes, indices, terms and offsets 8. A record of index 0 is a
mark: it holds no entry, only `synced`. The salt is drawn anew for each file, so nothing else that lies about on the
disk, and nothing a client puts into a command, passes for a record.

The bytes after the last sync can be on the disk in part, in any order, or not at all: a power cut leaves a torn tail.
It was never acknowledged and is cut off. The bytes before the last sync must be whole: if they are not, the disk has
lost what it had promised, and to cut there would silently undo what others count on. `synced` tells the two apart: it
is the offset up to which the file was known to be on the disk when the record was written. Reading stops at the first
bad record; a whole record behind it whose `synced` lies beyond it proves damage. Each sync is followed by a mark, or
else nothing would vouch for the records before the last one.

Two things are asked of the disk: that writing next to synced bytes leaves them as they are, and that it does not lie
about syncs. What it loses up to the very end of the file, marks included, looks like a torn tail.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from gale.errors import HostError

Entry = tuple[bytes, int, int]
"""Command, index, term: as the library has it."""

JOURNAL_MAGIC = b"galejnl\x01"
META_MAGIC = b"galemet\x02"
SALT_BYTES = 4
HEADER = struct.Struct(f"<8s{SALT_BYTES}sI")
RECORD = struct.Struct(f"<{SALT_BYTES}sIIQQQ")
COVERED = struct.Struct("<IQQQ")
META = struct.Struct("<8sI")
META_COVERED = struct.Struct("<QQQ??")


@dataclass(frozen=True, slots=True)
class Recovered:
    """`offsets`: where each entry's record begins. `end`: where to cut the file off, its size if nothing is torn."""

    salt: bytes
    entries: list[Entry]
    offsets: list[int]
    end: int


@dataclass(frozen=True, slots=True)
class Meta:
    """`learner`: it takes the log and does not vote, as every replica that has nothing yet. `epoch`: the last one that
    it has begun as a proposer."""

    term: int = 0
    vote: str | None = None
    commit: int = 1
    learner: bool = True
    epoch: int = 0


def damaged(file: Path, why: str) -> HostError:
    return HostError(
        f"{file}: {why}; stop this load balancer, move {file.parent} aside and start it: it is filled from the others,"
        " and votes again once it is"
    )


def header(salt: bytes) -> bytes:
    return HEADER.pack(JOURNAL_MAGIC, salt, crc32(JOURNAL_MAGIC + salt))


def record(salt: bytes, entry: Entry, synced: int) -> bytes:
    command, index, term = entry
    covered = COVERED.pack(len(command), index, term, synced) + command
    return salt + crc32(covered).to_bytes(4, "little") + covered


def mark(salt: bytes, synced: int) -> bytes:
    return record(salt, (b"", 0, 0), synced)


def journal(salt: bytes, entries: list[Entry]) -> tuple[bytes, list[int]]:
    """A whole file, and where each record begins. It vouches for itself: to be synced before it gets its name."""
    content, offsets = bytearray(header(salt)), []
    for entry in entries:
        offsets.append(len(content))
        content += record(salt, entry, 0)
    content += mark(salt, len(content))
    return bytes(content), offsets


def recover(content: bytes, file: Path) -> Recovered:
    """What a journal that is not empty holds. HostError if it is damaged; `file` is only named in it."""
    salt = content[len(JOURNAL_MAGIC) : HEADER.size - 4]
    if content[: HEADER.size] != header(salt.ljust(SALT_BYTES)):
        raise damaged(file, "damaged at offset 0, or not a journal of this version")
    entries: list[Entry] = []
    offsets: list[int] = []
    offset = HEADER.size
    while whole := _read(content, offset, salt):
        entry, _, end = whole
        _, index, term = entry
        if index:
            if entries and (index != entries[-1][1] + 1 or term < entries[-1][2]):
                break
            entries.append(entry)
            offsets.append(offset)
        offset = end
    if _vouched(content, offset, salt):
        raise damaged(file, f"damaged at offset {offset}")
    return Recovered(salt, entries, offsets, offset)


def _read(content: bytes, offset: int, salt: bytes) -> tuple[Entry, int, int] | None:
    """The record at `offset`, its `synced` and where it ends; None if it is not whole."""
    start = offset + RECORD.size
    if start > len(content):
        return None
    found, crc, length, index, term, synced = RECORD.unpack_from(content, offset)
    end = start + length
    if found != salt or end > len(content) or crc != crc32(memoryview(content)[offset + SALT_BYTES + 4 : end]):
        return None
    return (content[start:end], index, term), synced, end


def _vouched(content: bytes, bad: int, salt: bytes) -> bool:
    """Does a whole record behind the offset `bad` say that what stood there was on the disk?"""
    offset = content.find(salt, bad)
    while offset >= 0:
        whole = _read(content, offset, salt)
        if whole and whole[1] > bad:
            return True
        offset = content.find(salt, offset + 1)
    return False


def encode_meta(meta: Meta) -> bytes:
    numbers = META_COVERED.pack(meta.term, meta.commit, meta.epoch, meta.learner, meta.vote is not None)
    covered = numbers + (meta.vote or "").encode()
    return META.pack(META_MAGIC, crc32(covered)) + covered


def decode_meta(content: bytes, file: Path) -> Meta:
    """HostError if it is damaged; `file` is only named in it."""
    covered = content[META.size :]
    if content[: META.size] != META.pack(META_MAGIC, crc32(covered)) or len(covered) < META_COVERED.size:
        raise damaged(file, "damaged, or not of this version: this load balancer might vote twice")
    term, commit, epoch, learner, voted = META_COVERED.unpack_from(covered)
    return Meta(term, covered[META_COVERED.size :].decode() if voted else None, commit, learner, epoch)
