"""Machines for tests: containers that boot Debian with systemd, wired by two bridges like machines on two networks.

    public   10.78.1.0/24      eth1: clients, SSH and names by mDNS
    private  192.168.56.0/24   eth2: Raft, checks, and packets to nodes

Everything is in a network namespace of its own, which is also a client at 10.78.1.1: nothing of this machine's network
is touched. What XDP hands to a veth needs GRO at its other end, and what a machine sends has to have its checksum
before it reaches XDP; a real card does both.
"""

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.containers.base import WHERE
from e2e.waiting import until
from gale.lab import netns

NAMESPACE = "gale-machines"
NETWORKS = {"eth1": ("public", "10.78.1"), "eth2": ("private", "192.168.56")}
BOOTS_WITHIN_S = 60.0
STOPS_WITHIN_S = 30.0
COMMAND_WITHIN_S = 300.0
REBOOTED = 133
"""What nspawn ends with then, when it keeps the unit that it is in."""
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
# In a container the kernel's settings are writable and bpf(2) is allowed only where that is asked for.
NSPAWN = [
    "systemd-nspawn",
    "--quiet",
    "--boot",
    "--register=no",
    "--keep-unit",
    "--capability=all",
    "--private-network",
]
ALLOWED = ["--system-call-filter=bpf"]
# systemd-networkd would wait for udev, which a container does not have.
WIRES_UNIT = """\
[Unit]
Before=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
{commands}
[Install]
WantedBy=network-online.target multi-user.target
"""


def in_network(*command: str | Path) -> list[str]:
    """The command, run where the bridges are. `ip netns exec` would hide the control groups that a boot needs."""
    return ["nsenter", f"--net={netns.path(NAMESPACE)}", *map(str, command)]


@contextmanager
def network() -> Iterator[None]:
    """What an earlier run left is removed first."""
    netns.remove(NAMESPACE)
    netns.create(NAMESPACE)
    try:
        _wire()
        yield
    finally:
        netns.remove(NAMESPACE)


def _wire() -> None:
    for bridge, prefix in NETWORKS.values():
        shell = (
            f"ip link add {bridge} type bridge mcast_snooping 0 && ip address add {prefix}.1/24 dev {bridge} &&"
            f" ethtool -K {bridge} tx off >/dev/null && ip link set {bridge} up"
        )
        subprocess.run(in_network("/bin/sh", "-ec", shell), check=True)
    subprocess.run(in_network("ip", "link", "set", "lo", "up"), check=True)


class Machine:
    """`number` is the last byte of its addresses. Its disk outlives `cut` and `boot`, and goes with `destroy`."""

    def __init__(self, name: str, number: int, base: Path) -> None:
        self.name = name
        self.addresses = {interface: f"{prefix}.{number}" for interface, (_, prefix) in NETWORKS.items()}
        self._folder = WHERE / "machines" / name
        self._base = base
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.root = self._folder / "root"

    def make(self) -> None:
        """Raises subprocess.CalledProcessError."""
        self.destroy()
        upper, work = self._folder / "upper", self._folder / "work"
        for folder in (upper, work, self.root):
            folder.mkdir(parents=True)
        layers = f"lowerdir={self._base},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", self.root], check=True)
        self.write("/etc/hostname", f"{self.name}\n")
        self.write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        commands = (
            f"ExecStart=ip link set {interface} up\nExecStart=ip address add {address}/24 dev {interface}"
            for interface, address in self.addresses.items()
        )
        self.write("/etc/systemd/system/wires.service", WIRES_UNIT.format(commands="\n".join(commands)))
        masked = "systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service"
        units = f"systemctl enable --quiet wires; systemctl mask --quiet {masked}; ssh-keygen -A >/dev/null"
        subprocess.run(["chroot", self.root, "/bin/sh", "-ec", units], check=True, capture_output=True)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def boot(self) -> None:
        """Returns when systemd is up and the interfaces are plugged in. Raises AssertionError."""
        wires = [f"--network-veth-extra={self._port(interface)}:{interface}" for interface in NETWORKS]
        names = [f"--machine={self.name}", f"--directory={self.root}"]
        with (self._folder / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                in_network(*NSPAWN, *ALLOWED, *names, *wires),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"},
                start_new_session=True,
            )
        until(self._not_begun, BOOTS_WITHIN_S)
        for interface, (bridge, _) in NETWORKS.items():
            port = self._port(interface)
            shell = f"ethtool -K {port} gro on; ip link set {port} master {bridge} up"
            subprocess.run(in_network("/bin/sh", "-ec", shell), check=True)
        until(self._not_up, BOOTS_WITHIN_S)
        for interface in NETWORKS:
            self.run(f"ethtool -K {interface} tx off >/dev/null")

    def run(self, script: str, *, check: bool = True, within_s: float = COMMAND_WITHIN_S) -> str:
        """What a shell in the machine prints, both streams. Raises RuntimeError with all of it when it fails."""
        leader = self._leader()
        if leader is None:
            raise RuntimeError(f"{self.name} is off: {script}")
        spaces = ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        done = subprocess.run(
            [*spaces, "/bin/bash", "-c", script],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
            env=ENVIRONMENT,
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {script}: ended with {done.returncode}: {done.stdout[-4000:]}")
        return done.stdout

    def off(self) -> None:
        """Shut down in good order."""
        self._end(signal.SIGTERM)

    def cut(self) -> None:
        """The plug is pulled: nothing in the machine runs any more, nothing is told."""
        leader = self._leader()
        if leader is not None:
            subprocess.run(["kill", "-KILL", str(leader)], check=False)
        self._end(signal.SIGKILL)

    def boot_again(self, ended: threading.Event) -> None:
        """Until told to end: boot whenever the machine has rebooted itself, as a machine does."""
        while not ended.wait(0.2):
            if self._nspawn is not None and self._nspawn.poll() == REBOOTED:
                self.boot()

    def destroy(self) -> None:
        self.cut()
        if self.root.is_mount():
            subprocess.run(["umount", self.root], check=True)
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def _port(self, interface: str) -> str:
        return f"{self.name}-{interface}"

    def _not_begun(self) -> str | None:
        """Raises AssertionError with what the console says when the machine went off by itself."""
        if self._nspawn is not None and self._nspawn.poll() is not None:
            console = (self._folder / "console.log").read_text(errors="replace")
            raise AssertionError(f"{self.name} did not boot: {console[-2000:]}")
        return None if self._leader() else f"{self.name} has no first process"

    def _not_up(self) -> str | None:
        if why := self._not_begun():
            return why
        state = self.run("systemctl is-system-running", check=False).strip()
        return None if state in ("running", "degraded") else f"{self.name} is {state}"

    def _leader(self) -> str | None:
        """The machine's first process, as this machine numbers it."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            return None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return child
        return None

    def _end(self, with_signal: signal.Signals) -> None:
        if self._nspawn is None:
            return
        self._nspawn.send_signal(with_signal)
        try:
            self._nspawn.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None
        for interface in NETWORKS:  # the kernel takes its time to notice that the other end is gone
            subprocess.run(in_network("ip", "link", "delete", self._port(interface)), check=False, capture_output=True)
