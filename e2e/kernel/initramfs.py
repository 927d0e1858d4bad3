"""The archive that a kernel starts from, in the format that cpio calls newc: pure values."""

import stat
from collections.abc import Iterable, Iterator, Mapping

MAGIC = b"070701"
END = "TRAILER!!!"


def archive(folders: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """All files may be executed."""
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    return b"".join(_pieces([*entries, (END, 0, b"")]))


def _pieces(entries: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    for number, (name, mode, content) in enumerate(entries, start=1):
        path = name.encode() + b"\0"
        # number, mode, owner, group, links, time, size, device (2), special device (2), length of name, no checksum
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        header = MAGIC + b"".join(b"%08x" % field for field in fields) + path
        yield header + bytes(-len(header) % 4)
        yield content + bytes(-len(content) % 4)
