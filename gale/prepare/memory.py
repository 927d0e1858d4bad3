"""What gale-node has changed on this machine, in a file that outlives it, but no boot: /run is empty then, and the
changes are gone.

The file is named after the network namespace, since the changes are its: by its cookie, a number that the kernel gives
to no second one. Some containers keep /run over a boot, so the file also says of which boot it is.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gale.dataplane.namespace import cookie
from gale.errors import HostError
from gale.prepare.plan import Change

RUN = Path("/run/gale-node")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class _File(msgspec.Struct):
    boot: str
    changes: list[Change]


class Memory:
    """Of the network namespace of the thread that makes it."""

    def __init__(self, folder: Path = RUN) -> None:
        self._path = folder / f"{cookie()}.json"

    def read(self) -> tuple[Change, ...]:
        """In the order they were made. Raises HostError for a file that cannot be read."""
        try:
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.DecodeError) as error:
            raise HostError(f"{self._path}: what gale-node changed cannot be read: {error}: remove the file") from error
        return tuple(file.changes) if file.boot == _boot() else ()

    def write(self, changes: tuple[Change, ...]) -> None:
        """The old file or the new one is there, whenever this process ends. Raises HostError."""
        try:
            if not changes:
                self._path.unlink(missing_ok=True)
                return
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(_File(_boot(), list(changes))))
            new.replace(self._path)
        except OSError as error:
            raise HostError(f"{self._path}: cannot be written: {error.strerror}") from error


@contextmanager
def alone() -> Iterator[None]:
    """Be the only gale-node that changes this machine. The hold is a name in this network namespace that ends with
    us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hold:
        try:
            hold.bind("\0gale-node")
        except OSError as error:
            raise HostError("another gale-node prepares this machine: stop it first") from error
        yield


def _boot() -> str:
    return _BOOT.read_text().strip()
