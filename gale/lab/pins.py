"""What load balancers of a lab leave in the kernel's own file system, removed with the lab.

Maps that are pinned there outlive their gale-lb, which is what they are for, and its namespace as well. Each load
balancer has a folder of its own, whose name ends with its namespace's number.
"""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gale.lab import netns

PINS = Path("/sys/fs/bpf/gale")


def folders(namespaces: Iterable[str], root: Path = PINS) -> list[Path]:
    """Those of load balancers in these namespaces."""
    numbers = set()
    for namespace in namespaces:
        with suppress(FileNotFoundError):
            numbers.add(str(netns.path(namespace).stat().st_ino))
    found = root.iterdir() if root.is_dir() else ()
    return sorted(folder for folder in found if "-" in folder.name and folder.name.rpartition("-")[2] in numbers)


def remove(namespaces: Iterable[str]) -> None:
    for folder in folders(namespaces):
        shutil.rmtree(folder, ignore_errors=True)
