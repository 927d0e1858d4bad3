"""Installs the packages of those that gale is measured beside, and of what measures, when one of them is missing.

By name, with apt, as scripts/install does. None of their services is started: the measurement runs the programs itself.
"""

import os
import shutil
import subprocess
from pathlib import Path

from bench.contestants import stream_module
from gale.errors import HostError

PACKAGES = {
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    str(stream_module()): "libnginx-mod-stream",
    "nft": "nftables",
    "wrk": "wrk",
    "iperf3": "iperf3",
    "ethtool": "ethtool",
    "taskset": "util-linux",
    "ss": "iproute2",
    "sysctl": "procps",
}
APT = ["apt-get", "--yes", "--quiet", "-o", "Dpkg::Use-Pty=0"]
WITHIN_S = 600
NO_SERVICES = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Packages whose programs are not there."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [
        package
        for program, package in PACKAGES.items()
        if not (Path(program).exists() if program.startswith("/") else shutil.which(program, path=path))
    ]


def install() -> None:
    """Raises HostError when apt cannot."""
    wanted = missing()
    if not wanted:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    ours = not NO_SERVICES.exists()
    if ours:
        NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
        NO_SERVICES.chmod(0o755)
    try:
        for order in (["update"], ["install", "--no-install-recommends", *wanted]):
            done = subprocess.run(
                [*APT, *order], env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
            )
            if done.returncode:
                raise HostError(f"apt-get {' '.join(order)}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    finally:
        if ours:
            NO_SERVICES.unlink()
