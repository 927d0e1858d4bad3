"""Three network namespaces on this machine, for tests with real sockets:

    client 198.51.100.7 ── 198.51.100.1 public │ load balancer │ private 10.0.0.1 ── 10.0.0.11 node

The virtual address is the load balancer's own on the public side. A veth stands in for each cable.
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep

CLIENT, PUBLIC = "198.51.100.7", "198.51.100.1"
PRIVATE, NODE = "10.0.0.1", "10.0.0.11"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def eventually(condition: Callable[[], bool], within_s: float = 5) -> None:
    """Fails unless the condition holds in time."""
    end = monotonic() + within_s
    while not condition():
        assert monotonic() < end, f"not within {within_s} s"
        sleep(0.005)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """This thread, in the namespace: what it opens there, it keeps."""
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{name}") as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(before.fileno())


def _setns(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass(frozen=True)
class Network:
    """Names of the namespaces. Their interfaces: `eth0` of client and node, `public` and `private`."""

    client: str
    balancer: str
    node: str

    def offload(self, of: str, *settings: str, interface: str = "eth0") -> None:
        """ethtool -K, in pairs such as "tx", "off"."""
        run("nsenter", f"--net=/run/netns/{of}", "ethtool", "-K", interface, *settings)

    def connect(self, port: int, within_s: float = 5) -> socket.socket:
        with namespace(self.client):
            return socket.create_connection((PUBLIC, port), within_s)

    def listen(self, port: int, within_s: float = 5) -> socket.socket:
        with namespace(self.node):
            listening = socket.create_server((NODE, port))
        listening.settimeout(within_s)
        return listening


@contextmanager
def network() -> Iterator[Network]:
    names = [f"dp-{role}-{os.getpid()}" for role in ("client", "balancer", "node")]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        yield _wire(Network(*names))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _wire(net: Network) -> Network:
    cables = [("public", PUBLIC, net.client, CLIENT), ("private", PRIVATE, net.node, NODE)]
    for interface, address, host, host_address in cables:
        run("ip", "-n", net.balancer, "link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", host)
        for where, name, ip in ((net.balancer, interface, address), (host, "eth0", host_address)):
            run("ip", "-n", where, "address", "add", f"{ip}/24", "dev", name)
            run("ip", "-n", where, "link", "set", name, "up")
        net.offload(host, "gro", "on")  # else a veth loses what XDP redirects into its peer
    net.offload(net.client, "tx", "off")  # XDP sees checksums as a network card would deliver them
    return net
