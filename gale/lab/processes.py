"""Processes of a lab: started in a namespace, known again by pid and start time, signalled only when both agree.

A pid alone is not enough: after a crash or a reboot the same number may belong to anybody. Signals go through a pidfd
opened before the check, so the process that was checked is the one that is signalled.
"""

import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gale.errors import LabError
from gale.lab import netns

PROC = Path("/proc")
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Process:
    """`start` is field 22 of /proc/PID/stat, clock ticks since boot."""

    pid: int
    start: int


def entering(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in a namespace; /sys and its bpffs stay those of the machine."""
    return ["/usr/bin/nsenter", f"--net={netns.path(namespace)}", "--", *command]


def spawn(namespace: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start `command` in `namespace`, in a session of its own, with its output appended to `log`.

    `environment` is added to our own.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_OPEN, output, str(log), flags, 0o644) for output in (1, 2)]
    argv = entering(namespace, command)
    try:
        pid = os.posix_spawn(argv[0], argv, {**os.environ, **(environment or {})}, file_actions=actions, setsid=True)
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not there: it comes with the package util-linux") from None
    # A child stays in /proc until it is waited for, so the start time can be read even if it ended at once.
    start = _stat(pid)
    return Process(pid, start[1] if start else 0)


def alive(process: Process) -> bool:
    """Whether it runs. A child of ours that has ended is waited for, so that it does not stay as a zombie."""
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    stat = _stat(process.pid)
    return stat is not None and stat[0] not in "ZX" and stat[1] == process.start


def state(process: Process) -> str | None:
    """The kernel's letter for what it does, "T" when it is stopped; None when it is gone."""
    stat = _stat(process.pid)
    return stat[0] if stat and stat[1] == process.start else None


def send(process: Process, number: signal.Signals) -> None:
    """Signal it if it still is the process that was started; else do nothing."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if alive(process):
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def wait_gone(processes: Iterable[Process], within_s: float) -> list[Process]:
    """Wait until all have ended; the ones that have not after `within_s`."""
    deadline = time.monotonic() + within_s
    left = [process for process in processes if alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = [process for process in left if alive(process)]
    return left


def end(processes: Sequence[Process], grace_s: float) -> None:
    """SIGTERM, and SIGKILL for what has not ended within `grace_s`. Raises LabError when something survives that."""
    for process in processes:
        send(process, signal.SIGTERM)
    kill(wait_gone(processes, grace_s))


def kill(processes: Sequence[Process]) -> None:
    for process in processes:
        send(process, signal.SIGKILL)
    if left := wait_gone(processes, 5):
        raise LabError(f"cannot end process {', '.join(str(process.pid) for process in left)}: not even by SIGKILL")


def in_namespaces(namespaces: Iterable[str]) -> list[Process]:
    """Every process that stands in one of the namespaces, whoever started it."""
    inodes = set()
    for namespace in namespaces:
        with suppress(FileNotFoundError):
            inodes.add(netns.path(namespace).stat().st_ino)
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                if (entry / "ns/net").stat().st_ino in inodes and (stat := _stat(int(entry.name))):
                    found.append(Process(int(entry.name), stat[1]))
    return found


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time; None when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything, spaces and brackets too
    return fields[0], int(fields[19])
