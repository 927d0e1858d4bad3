"""What this machine runs: what whoever reads a report of trouble asks first."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import gale

LIBRARIES = ("click", "cryptography", "grpcio", "msgspec", "protobuf", "pyroute2", "pysyncobj", "uvloop")


def machine() -> dict[str, str]:
    """Name -> version, or the like."""
    told = {
        "gale": gale.__version__,
        "kernel": f"{platform.release()} {platform.version()}",
        "architecture": platform.machine(),
        "processors": str(os.cpu_count()),
        "python": platform.python_version(),
    }
    with suppress(OSError):
        told["distribution"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            told[library] = version(library)
    return told
