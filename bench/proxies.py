"""HAProxy beside gale-lb on every load balancer of a lab, with what it has of its own for the same changes.

It listens on the load balancers' virtual addresses at a port of its own, and gale passes its packets on. It asks nodes
at the port of a service in mode l2: at that of l4's, gale's flows and its connections would share the address and the
ports of the load balancer. It checks nodes as often as they check in with gale and believes three checks, as gale does;
what cannot be connected is tried at another node; it is drained through its runtime interface, and reloaded by a new
process that takes the old one's listeners over and lets it end with its connections.
"""

import socket
import time

from bench.stand import WITHIN_S
from gale.errors import HostError
from gale.lab import processes
from gale.lab.cluster import Lab
from gale.lab.topology import endpoint

PORT = 8090
CHECKS, CHECKS_INTERVAL_MS = 3, 333
MOST_CONNECTIONS = 4_000


class Proxies:
    """By the name of their load balancer. They live in its namespace, so they end with the lab at the latest."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._running: dict[str, processes.Process] = {}
        self._old: list[processes.Process] = []

    def start(self, name: str, *more: str) -> None:
        """And wait until it listens and has all nodes that are there."""
        lab = self._lab
        file = lab.store.config(f"{name}-haproxy").with_suffix(".cfg")
        file.write_text(self._text(name))
        command = ["haproxy", "-db", "-f", str(file), *more]
        namespace = lab.topology.instance(name).namespace
        self._running[name] = processes.spawn(namespace, command, lab.store.log(f"{name}-haproxy"))
        deadline = time.monotonic() + WITHIN_S
        while not self._answers(name):
            if time.monotonic() > deadline:
                raise HostError(f"haproxy on {name} does not answer: see {lab.store.log(f'{name}-haproxy')}")
            time.sleep(0.02)

    def kill(self, name: str) -> None:
        processes.kill([self._running.pop(name)])

    def reload(self, name: str) -> None:
        before = self._running[name]
        self._old.append(before)
        self.start(name, "-x", self._socket(name), "-sf", str(before.pid))

    def end_old(self) -> None:
        """Those that a reload has left to their connections."""
        processes.kill(self._old)
        self._old = []

    def set_drain(self, node: str, on: bool) -> None:
        for name in self._running:
            said = self._ask(name, f"set server web/{node} state {'drain' if on else 'ready'}")
            if said.strip():
                raise HostError(f"haproxy on {name}: {said.strip()}")

    def wait_up(self) -> None:
        """Until every one has all nodes."""
        deadline = time.monotonic() + WITHIN_S
        for name in self._running:
            while missing := self._down(name):
                if time.monotonic() > deadline:
                    raise HostError(f"haproxy on {name} finds {', '.join(missing)} down")
                time.sleep(0.02)

    def _down(self, name: str) -> list[str]:
        lines = [line.split(",") for line in self._ask(name, "show stat").splitlines()]
        return [line[1] for line in lines if len(line) > 17 and line[1].startswith("node-") and line[17] != "UP"]

    def _answers(self, name: str) -> bool:
        """The process that was started last, and none before it."""
        try:
            return f"Pid: {self._pid(name)}\n" in self._ask(name, "show info")
        except OSError:
            return False

    def _pid(self, name: str) -> int:
        return self._running[name].pid

    def _ask(self, name: str, words: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as runtime:
            runtime.settimeout(WITHIN_S)
            runtime.connect(self._socket(name))
            runtime.sendall(words.encode() + b"\n")
            said = b""
            while piece := runtime.recv(65_536):
                said += piece
        return said.decode()

    def _socket(self, name: str) -> str:
        return str(self._lab.store.state(name) / "haproxy.sock")

    def _text(self, name: str) -> str:
        topology = self._lab.topology
        binds = "\n".join(f"    bind {endpoint(lb, PORT)}" for lb in topology.lbs)
        port = self._lab.options.service("l2").target_port
        nodes = "\n".join(f"    server {node.name} {node.private}:{port}" for node in topology.node_instances)
        return f"""\
global
    nbthread 1
    maxconn {MOST_CONNECTIONS}
    stats socket {self._socket(name)} mode 600 level admin expose-fd listeners
defaults
    mode tcp
    balance roundrobin
    option redispatch
    retries 3
    timeout connect 500ms
    timeout client 60s
    timeout server 60s
    timeout check 333ms
    default-server check inter {CHECKS_INTERVAL_MS}ms fall {CHECKS} rise {CHECKS}
listen web
{binds}
{nodes}
"""
