"""What was compiled is kept, and a start that asks for the same goes on without BCC.

A file is named by everything that compiling depends on (`key`): the text, the headers, the constants, BCC, the kernel
and the machine. So a file is never out of date; it is only asked for no more. What differs between starts, secrets
among it, is no part of it (bpf/late.h). The files used last are kept.

The directory belongs to the user gale runs as, and nobody else may write there; otherwise it is not touched, and every
start compiles. This is not what the packet path's safety rests on: whoever can write there as root can load programs
anyway, and the kernel's verifier judges instructions wherever they come from. A checksum finds what a disk has damaged.
Whatever is wrong with the directory or a file costs the time to compile, and a line in the log.
"""

import hashlib
import os
import platform
import stat
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import structlog

from gale.dataplane.compiled import Compiled
from gale.dataplane.compiler import compile_text, headers

log = structlog.get_logger()

DIRECTORY = Path("/var/cache/gale")
FILES_MOST = 64

_FORM = b"1"
"""Of the files: another one is another key."""
_SUFFIX = ".bpf"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_USER_API_VERSION = Path("/usr/include/linux/version.h")


def compiled(text: bytes, cflags: Sequence[str], programs: Iterable[str]) -> tuple[Compiled, Path | None]:
    """Compiled now, or taken from a file, which is named then. Raises what `compile_text` raises."""
    names = list(programs)
    with _directory() as folder:
        if folder is None:
            return compile_text(text, cflags, names), None
        name = key(text, cflags, names) + _SUFFIX
        found = _take(folder, name)
        if found is not None:
            return found, DIRECTORY / name
        made = compile_text(text, cflags, names)
        _keep(folder, name, made)
        return made, None


def key(text: bytes, cflags: Sequence[str], programs: Iterable[str]) -> str:
    parts = [
        _FORM,
        text,
        *(flag.encode() for flag in cflags),
        b"programs",
        *(name.encode() for name in programs),
        *(part for name, contents in headers() for part in (name.encode(), contents)),
        _USER_API_VERSION.read_bytes() if _USER_API_VERSION.exists() else b"",
        *(f"{path} {about.st_size} {about.st_mtime_ns}".encode() for path, about in _bcc()),
        platform.machine().encode(),
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:%s" % (len(part), part))
    return digest.hexdigest()


def _bcc() -> Iterator[tuple[Path, os.stat_result]]:
    """The files by which one version of BCC differs from another, without importing it."""
    binding = find_spec("bcc")
    folders = (f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}", "/usr/lib", "/usr/lib64", "/usr/local/lib")
    libraries = [Path(folder, "libbcc.so.0") for folder in folders]
    for path in [*([Path(binding.origin)] if binding and binding.origin else []), *libraries]:
        with suppress(OSError):
            whole = path.resolve(strict=True)
            yield whole, whole.stat()


@contextmanager
def _directory() -> Iterator[int | None]:
    """Open, so that what was looked at is what is used."""
    try:
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        log.info("compiled programs are not kept", directory=str(DIRECTORY), why=error.strerror)
        yield None
        return
    try:
        about = os.fstat(folder)
        foreign = about.st_uid != os.geteuid() or about.st_mode & _OTHERS_WRITE
        if foreign:
            why = f"it must belong to user {os.geteuid()}, and nobody else may write there"
            log.warning("compiled programs are not kept", directory=str(DIRECTORY), why=why)
        yield None if foreign else folder
    finally:
        os.close(folder)


def _take(folder: int, name: str) -> Compiled | None:
    try:
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
            found = Compiled.of(file.read())
            with suppress(OSError):  # a disk that is read only
                os.utime(file.fileno())
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("compiled anew, because the kept file is no good", file=str(DIRECTORY / name), why=str(error))
        return None


def _keep(folder: int, name: str, made: Compiled) -> None:
    """Written aside and renamed: who reads finds all of it or nothing."""
    aside = f"{name.removesuffix(_SUFFIX)}.{os.getpid()}{_SUFFIX}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(aside, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(made.as_bytes())
        os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
        _prune(folder)
    except OSError as error:
        log.warning("a compiled program is not kept", file=str(DIRECTORY / name), why=error.strerror)
        with suppress(OSError):
            os.unlink(aside, dir_fd=folder)


def _prune(folder: int) -> None:
    """Those used last stay; what a start that was killed left aside goes with the others."""
    used: list[tuple[int, str]] = []
    for name in os.listdir(folder):
        if name.endswith(_SUFFIX):
            with suppress(FileNotFoundError):  # others prune, too
                used.append((os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns, name))
    for _, name in sorted(used, reverse=True)[FILES_MOST:]:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
