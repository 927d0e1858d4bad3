"""Small disks for a lab: one that can be full, and one whose power can be cut.

A small disk is a tmpfs of a given size. A cut of power is played with ext4 on a loop device and FS_IOC_SHUTDOWN without
flushing the log: from that moment on nothing more reaches the image, so after an unmount and a mount it holds what a
disk would hold whose machine lost its power there and then.
"""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from gale.errors import LabError

FS_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSH = 2
IMAGE_BYTES = 32 << 20
MOUNTS = Path("/proc/self/mountinfo")
MOUNT_TIMEOUT_S = 20
RELEASED_WITHIN_S = 5.0
POLL_S = 0.02


def put_on_tmpfs(directory: Path, kilobytes: int) -> None:
    """Move what is in a directory to a disk of that size that is mounted there. Nothing may have it open."""
    _move_onto(directory, ["-t", "tmpfs", "-o", f"size={kilobytes}k,mode=755", "gale-lab"])


def put_on_ext4(directory: Path, image: Path) -> None:
    """Move what is in a directory to an ext4 of its own, kept in `image`, that is mounted there."""
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    _run(["mkfs.ext4", "-q", "-F", str(image)])
    _move_onto(directory, ["-o", "loop", str(image)])


def fill(directory: Path) -> Path:
    """Take all the space there is; removing the file that is returned gives it back."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise LabError(f"{directory}: cannot be filled: {error.strerror}") from error
    return ballast


def cut_power(directory: Path) -> None:
    """From here on nothing reaches the disk that is mounted there, and what was not synced is lost."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
    except OSError as error:
        raise LabError(f"{directory}: its power cannot be cut: {error.strerror}") from error
    finally:
        os.close(descriptor)


def restore_power(directory: Path, image: Path) -> None:
    """Mount it again, as after the boot of its machine."""
    deadline = time.monotonic() + RELEASED_WITHIN_S
    while True:
        try:
            _run(["umount", str(directory)])
            break
        except LabError:  # the last threads of a program that was killed may hold it for a moment
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
    _run(["mount", "-o", "loop", str(image), str(directory)])


def can_mount() -> str | None:
    """Why this machine does not let disks be mounted; None when it does."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            put_on_ext4(Path(folder), Path(f"{folder}.image"))
        except LabError as error:
            return str(error)
        finally:
            unmount_below(Path(folder))
            Path(f"{folder}.image").unlink(missing_ok=True)
    return None


def unmount_below(directory: Path) -> None:
    """Take off every disk in a directory, the last one first."""
    for mounted in reversed(below(directory, MOUNTS.read_text())):
        _run(["umount", "--lazy", str(mounted)])


def below(directory: Path, mountinfo: str) -> list[Path]:
    """What is mounted at a directory or below it, of a text as /proc/self/mountinfo has it."""
    mounted = [Path(line.split()[4].replace("\\040", " ")) for line in mountinfo.splitlines()]
    return [path for path in mounted if path.is_relative_to(directory)]


def _move_onto(directory: Path, arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as aside:
        kept = shutil.copytree(directory, Path(aside) / "kept")
        _run(["mount", *arguments, str(directory)])
        shutil.copytree(kept, directory, dirs_exist_ok=True)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOUNT_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not there") from None
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
