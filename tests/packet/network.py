"""Three network namespaces on this machine, for tests with real sockets:

    client 198.51.100.7 ── 198.51.100.1 public │ load balancer │ private 10.0.0.1 ── 10.0.0.11 node
      2001:db8:1::7        2001:db8:1::1                         fd00::1          fd00::11

The virtual addresses are the load balancer's own on the public side. A veth stands in for each cable. Nobody waits to
find out whether an IPv6 address is taken.
"""

import ctypes
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

CLIENT, PUBLIC = "198.51.100.7", "198.51.100.1"
PRIVATE, NODE = "10.0.0.1", "10.0.0.11"
CLIENT6, PUBLIC6 = "2001:db8:1::7", "2001:db8:1::1"
PRIVATE6, NODE6 = "fd00::1", "fd00::11"
_COUNT = itertools.count()
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def eventually(condition: Callable[[], bool], within_s: float = 5) -> None:
    """Fails unless the condition holds in time."""
    end, late = monotonic() + within_s, False
    while not condition():
        assert not late, f"not within {within_s} s"
        sleep(0.005)
        late = monotonic() >= end  # and then once more


def run(*command: str, text: str | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, input=text).stdout


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

    def connect(self, port: int, within_s: float = 5, address: str = PUBLIC) -> socket.socket:
        with namespace(self.client):
            return socket.create_connection((address, port), within_s)

    def listen(self, port: int, within_s: float = 5, address: str = NODE) -> socket.socket:
        with namespace(self.node):
            listening = socket.create_server((address, port), family=_family(address))
        listening.settimeout(within_s)
        return listening

    def datagrams(self, of: str, address: str, port: int = 0, within_s: float = 5) -> socket.socket:
        """A UDP socket at this address."""
        with namespace(of):
            end = socket.socket(_family(address), socket.SOCK_DGRAM)
            end.bind((address, port))
        end.settimeout(within_s)
        return end

    def ip(self, of: str, *command: str) -> str:
        return run("ip", "-n", of, *command)

    def cable(self, interface: str, addresses: Sequence[str], host: str, name: str, theirs: Sequence[str]) -> None:
        """From the load balancer's interface to the host's."""
        self.ip(self.balancer, "link", "add", interface, "type", "veth", "peer", "name", name, "netns", host)
        self.address(self.balancer, interface, addresses)
        self.address(host, name, theirs)
        self.offload(host, "gro", "on", interface=name)  # else a veth loses what XDP redirects into its peer

    def bridge(self, name: str, port: str, addresses: Sequence[str]) -> None:
        """The load balancer's bridge, with one of its interfaces as its port, whose addresses it gets."""
        self.ip(self.balancer, "address", "flush", "dev", port)
        self.ip(self.balancer, "link", "add", name, "type", "bridge")
        self.ip(self.balancer, "link", "set", port, "master", name)
        self.address(self.balancer, name, addresses)

    def address(self, of: str, interface: str, addresses: Sequence[str]) -> None:
        """An interface that is up, and has these addresses."""
        for address in addresses:
            self.ip(of, "address", "add", f"{address}/{64 if ':' in address else 24}", "dev", interface)
        self.ip(of, "link", "set", interface, "up")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextmanager
def network() -> Iterator[Network]:
    """The load balancer has an interface for each side."""
    with _namespaces("client", "balancer", "node") as names:
        net = Network(*names)
        net.cable("public", (PUBLIC, PUBLIC6), net.client, "eth0", (CLIENT, CLIENT6))
        net.cable("private", (PRIVATE, PRIVATE6), net.node, "eth0", (NODE, NODE6))
        net.offload(net.client, "tx", "off")  # XDP sees checksums as a network card would deliver them
        yield net


@contextmanager
def one_arm() -> Iterator[Network]:
    """The load balancer has one interface, `arm`, to a switch that clients and nodes are connected to as well."""
    with _namespaces("client", "balancer", "node", "switch") as (*names, switch):
        net = Network(*names[:3])
        net.ip(switch, "link", "add", "bridge0", "type", "bridge")
        net.address(switch, "bridge0", ())
        ends = (
            (net.balancer, "arm", (PUBLIC, PUBLIC6, PRIVATE, PRIVATE6)),
            (net.client, "eth0", (CLIENT, CLIENT6)),
            (net.node, "eth0", (NODE, NODE6)),
        )
        for number, (host, interface, addresses) in enumerate(ends):
            port = f"port{number}"
            net.ip(switch, "link", "add", port, "type", "veth", "peer", "name", interface, "netns", host)
            net.ip(switch, "link", "set", port, "master", "bridge0")
            net.address(switch, port, ())
            net.address(host, interface, addresses)
            net.offload(switch, "gro", "on", interface=port)
            net.offload(switch, "tx", "off", interface=port)  # merged segments leave it as they came
        net.offload(net.client, "tx", "off")
        yield net


@contextmanager
def _namespaces(*roles: str) -> Iterator[list[str]]:
    number = next(_COUNT)
    names = [f"dp-{role}-{os.getpid()}-{number}" for role in roles]
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            with namespace(name):
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        yield names
    finally:
        for name in names:
            for pins in Path("/sys/fs/bpf/gale").glob(f"*-{Path('/run/netns', name).stat().st_ino}"):
                shutil.rmtree(pins)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
