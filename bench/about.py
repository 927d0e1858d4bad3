"""What a measurement was taken on, for the "about" of its file of results, so that a figure never stands alone."""

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("grpcio", "pysyncobj", "uvloop")

About = dict[str, Any]


def about(command: str, versions: Mapping[str, str] | None = None) -> About:
    """`versions`: of what took part beside gale and its libraries, by name."""
    libraries = {name: version(name) for name in LIBRARIES}
    system = platform.freedesktop_os_release()["PRETTY_NAME"].partition(" (")[0]
    return {
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "kernel": ".".join(platform.release().split(".")[:2]),
        "system": system,
        "versions": {"Python": platform.python_version(), **libraries, **(versions or {})},
        "command": command,
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()
