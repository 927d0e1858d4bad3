"""Network namespaces: made, entered and removed.

A namespace belongs to a thread, so work inside another one runs in a thread of its own that ends with the work: the
caller never stands in the wrong namespace, whatever fails or is interrupted.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2 import netns

from gale.errors import LabError

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def path(namespace: str) -> Path:
    return NAMESPACES / namespace


def existing() -> list[str]:
    return sorted(entry.name for entry in NAMESPACES.iterdir()) if NAMESPACES.is_dir() else []


def create(namespace: str) -> None:
    """Make an empty namespace, listed as `ip netns` does."""
    libc = ctypes.CDLL(None, use_errno=True)

    def unshare() -> None:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise LabError(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")
        netns.attach(namespace, "thread-self")

    if path(namespace).exists():
        raise LabError(f"the namespace {namespace} is there already")
    _in_thread(unshare)


def remove(namespace: str) -> None:
    """Forget a namespace; the kernel takes it apart once no process is in it. Does nothing when it is not there."""
    try:
        netns.remove(namespace)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise LabError(f"cannot remove the namespace {namespace}: {error.strerror}") from error


def inside(namespace: str, work: Callable[[], T]) -> T:
    """What `work` returns or raises when it runs in `namespace`."""

    def enter_and_work() -> T:
        try:
            descriptor = os.open(path(namespace), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise LabError(f"the namespace {namespace} is not there") from None
        try:
            netns.setns(descriptor)
        finally:
            os.close(descriptor)
        return work()

    return _in_thread(enter_and_work)


def _in_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
