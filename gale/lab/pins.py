"""What the programs of a lab leave outside of it when they are killed, removed with the lab.

Maps that are pinned in the kernel's own file system outlive their gale-lb, which is what they are for, and its
namespace as well. Each load balancer has a folder of its own, whose name ends with its namespace's number. What a
gale-node remembers of its machine (gale/prepare/memory.py) is named by the namespace's cookie.
"""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gale.dataplane.namespace import cookie
from gale.errors import LabError
from gale.lab import netns
from gale.prepare.memory import RUN

PINS = Path("/sys/fs/bpf/gale")


def folders(namespaces: Iterable[str], root: Path = PINS) -> list[Path]:
    """Those of load balancers in these namespaces."""
    numbers = set()
    for namespace in namespaces:
        with suppress(FileNotFoundError):
            numbers.add(str(netns.path(namespace).stat().st_ino))
    found = root.iterdir() if root.is_dir() else ()
    return sorted(folder for folder in found if "-" in folder.name and folder.name.rpartition("-")[2] in numbers)


def memory_of(namespace: str) -> Path:
    """Of a gale-node in this namespace. Raises LabError when the namespace is not there."""
    return RUN / f"{netns.inside(namespace, cookie)}.json"


def remove(namespaces: Iterable[str]) -> None:
    namespaces = list(namespaces)
    for folder in folders(namespaces):
        shutil.rmtree(folder, ignore_errors=True)
    for namespace in namespaces:
        with suppress(LabError):
            memory_of(namespace).unlink(missing_ok=True)
