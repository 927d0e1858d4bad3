"""Real machines, as an inventory of ansible names them: told over SSH, asked as their clients ask."""

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=accept-new"]
CTL = (
    "sudo gale-ctl {words} --output=json --server=127.0.0.1:5555 --ca=/etc/gale/tls/ca.crt"
    " --cert=/etc/gale/tls/machine.crt --key=/etc/gale/tls/machine.key"
)
COMMAND_WITHIN_S = 60.0
CLIENTS_PORT = 8080


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    user: str
    address: str
    private_interface: str

    @property
    def short(self) -> str:
        return self.name.partition(".")[0]

    def run(self, command: str, *, check: bool = True, within_s: float = COMMAND_WITHIN_S) -> str:
        """What a shell there prints. Raises AssertionError with all of it when it fails."""
        asked = [*SSH, f"{self.user}@{self.name}", command]
        done = subprocess.run(
            asked, check=False, capture_output=True, text=True, timeout=within_s, stdin=subprocess.DEVNULL
        )
        assert not check or done.returncode == 0, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def detached(self, script: str) -> None:
        """Run it there by root, also when the connection ends meanwhile."""
        self.run(f"sudo systemd-run --quiet --collect /bin/sh -c {shlex.quote(script)}")

    def status(self) -> dict[str, Any] | None:
        """The cluster as this load balancer sees it; None when it does not say."""
        told = self.run(CTL.format(words="cluster status"), check=False)
        return json.loads(told) if told.startswith("{") else None

    def answer(self) -> str:
        """The name of the node that a client's request gets to by this load balancer; empty when none answers."""
        asked = ["curl", "--silent", "--max-time", "2", f"http://{self.name}:{CLIENTS_PORT}/"]
        return subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class Inventory:
    load_balancers: tuple[Host, ...]
    nodes: tuple[Host, ...]

    @classmethod
    def read(cls, file: Path) -> "Inventory":
        listed = subprocess.run(["ansible-inventory", "-i", file, "--list"], check=True, capture_output=True, text=True)
        groups = json.loads(listed.stdout)
        known = groups["_meta"]["hostvars"]

        def members(group: str) -> tuple[Host, ...]:
            return tuple(
                Host(
                    name,
                    known[name]["ansible_user"],
                    known[name]["gale_address"],
                    known[name]["gale_private_interface"],
                )
                for name in groups[group]["hosts"]
            )

        return cls(members("load_balancers"), members("nodes"))

    @property
    def units(self) -> dict[Host, str]:
        """Each host with the service that it runs."""
        return dict.fromkeys(self.load_balancers, "gale-lb") | dict.fromkeys(self.nodes, "gale-node")

    def missing(self) -> str | None:
        """What keeps the cluster from being whole, as every load balancer sees it; None when nothing does."""
        for host in self.load_balancers:
            status = host.status()
            if status is None:
                return f"{host.name} does not answer"
            roles = sorted(entry["role"] for entry in status["load_balancers"])
            if roles != ["follower"] * (len(self.load_balancers) - 1) + ["leader"]:
                return f"{host.name} sees {roles}"
            phases = {entry["id"]: entry["phase"] for entry in status["nodes"]}
            if any(phases.get(node.short) != "routing" for node in self.nodes):
                return f"{host.name} sees {phases}"
        return None

    def leader(self) -> Host:
        status = self.load_balancers[0].status()
        assert status is not None
        (found,) = (host for host in self.load_balancers if status["leader"].startswith(f"{host.address}:"))
        return found
