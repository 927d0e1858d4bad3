"""The Debian that containers are made of: systemd, sshd and avahi, and what gale's package depends on, but not gale.

It is made once, in build/containers/base, from where this machine's own apt takes its packages; a container is an
overlay over it. The programs of an operator, ansible and pytest, lie in /opt/operator.
"""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHERE = ROOT / "build/containers"
BASE = WHERE / "base"
SUITE = "bookworm"
PACKAGES = [
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "openssh-client", "sudo"),
    *("avahi-daemon", "libnss-mdns", "ca-certificates", "curl", "ethtool", "iproute2", "iputils-ping", "procps"),
    *("python3", "python3-apt", "python3-bpfcc", "python3-venv", "linux-libc-dev"),
]
OPERATOR = ("ansible-core~=2.16.3", "pytest", "pytest-asyncio", "pytest-timeout")
SETTINGS = ("/etc/apt/sources.list.d", "/etc/apt/apt.conf.d", "/etc/pip.conf", "/etc/ssl/certs", "/etc/resolv.conf")
"""How this machine reaches packages; containers reach them the same way."""
TOOLS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "ethtool": "ethtool", "curl": "curl"}
MADE_WITHIN_S = 900


def make_base() -> Path:
    """Raises RuntimeError, subprocess.CalledProcessError. What an interrupted making, or one of other packages,
    has left is made anew."""
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        raise RuntimeError(f"this machine cannot make machines: apt-get install {' '.join(missing)}")
    done, made_of = WHERE / "base.done", f"{SUITE} {PACKAGES} {OPERATOR}"
    if done.exists() and done.read_text() == made_of:
        return BASE
    if BASE.exists():
        shutil.rmtree(BASE)
    WHERE.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(BASE), _mirror()]
    subprocess.run(command, check=True, timeout=MADE_WITHIN_S, stdout=subprocess.DEVNULL)
    _settle(BASE)
    (BASE / "etc/apt/sources.list").unlink(missing_ok=True)
    inside(BASE, f"apt-get update -q && apt-get install -y -q --no-install-recommends {' '.join(PACKAGES)}")
    _settle(BASE)  # ca-certificates has put its own list in the place of this machine's
    inside(BASE, f"python3 -m venv /opt/operator && /opt/operator/bin/pip install --quiet {' '.join(OPERATOR)}")
    inside(BASE, "useradd --create-home --shell /bin/bash vagrant; rm -f /etc/ssh/ssh_host_* /etc/machine-id")
    done.write_text(made_of)
    return BASE


def inside(root: Path, script: str) -> str:
    """What a shell prints that runs it in the folder, not booted, with this machine's network. Raises on failure."""
    settings = [
        f"--setenv={name}={value}" for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT"))
    ]
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--directory", str(root), *settings]
    shell = ["--setenv=DEBIAN_FRONTEND=noninteractive", "/bin/bash", "-ec", script]
    done = subprocess.run(
        [*command, *shell],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=MADE_WITHIN_S,
    )
    if done.returncode:
        raise RuntimeError(f"{script}: ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _settle(base: Path) -> None:
    for setting in map(Path, SETTINGS):
        if setting.exists():
            copy = ["cp", "--archive", "--dereference", "--remove-destination", "-T"]
            subprocess.run([*copy, setting, base / setting.relative_to("/")], check=True)


def _mirror() -> str:
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}"]
    found = subprocess.run(targets, check=True, capture_output=True, text=True).stdout.split()
    if not found:
        raise RuntimeError(f"this machine's apt knows no {SUITE}: its sources are where containers are made from")
    return found[0]
