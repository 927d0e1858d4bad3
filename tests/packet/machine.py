"""A node's machine and what is outside of it, for tests of what gale-node changes: two namespaces and a cable.

outside: a load balancer     eth0 ──── eth0     node
         10.0.0.2, fd00::2                      10.0.0.11, fd00::11
"""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.packet.network import namespace, run

LB, LB6, CLIENT, CLIENT6, STRANGER = "10.0.0.2", "fd00::2", "10.0.0.7", "fd00::7", "10.0.0.9"
MAC_CLIENT = "02:00:00:00:00:07"
NODE, NODE6 = "10.0.0.11", "fd00::11"
WAIT_S = 5


class Net:
    """The two namespaces, and frames that are sent outside and seen there."""

    def __init__(self, outside: str, node: str) -> None:
        self.outside, self.node = outside, node
        self.mac = self._mac(node)
        self.mac_outside = self._mac(outside)

    def _mac(self, where: str) -> str:
        return run("ip", "-n", where, "-br", "link", "show", "eth0").split()[2]

    @contextmanager
    def wire(self) -> Iterator[socket.socket]:
        with namespace(self.outside), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
            raw.bind(("eth0", 0))
            raw.settimeout(WAIT_S)
            yield raw

    def inside(self, *command: str) -> str:
        return run("nsenter", f"--net=/run/netns/{self.node}", *command)

    def move_to(self, interface: str) -> None:
        """The node's addresses, from eth0 to an interface that has none."""
        self.inside("ip", "address", "flush", "dev", "eth0")
        self.inside("ip", "link", "set", interface, "up")
        for address in (f"{NODE}/24", f"{NODE6}/64"):
            self.inside("ip", "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
        for address in (CLIENT, CLIENT6):
            self.inside("ip", "neigh", "replace", address, "lladdr", MAC_CLIENT, "dev", interface)

    def programs(self) -> list[tuple[str, int | None]]:
        """(interface, how its XDP program is attached)."""
        links = json.loads(self.inside("ip", "-j", "link"))
        return [(link["ifname"], link.get("xdp", {}).get("mode")) for link in links]

    def machine(self) -> tuple[object, ...]:
        """Everything that gale-node may touch, as the system's own tools show it; link-local addresses come late."""
        links = json.loads(self.inside("ip", "-j", "address"))
        held = [(entry["local"], entry["scope"]) for link in links for entry in link["addr_info"]]
        settings = self.inside("sysctl", "-a", "--pattern", r"^net\.ipv[46]\.conf\..*\.(arp_|rp_filter|accept_)")
        qdiscs = self.inside("tc", "qdisc", "show", "dev", "eth0")
        filters = self.inside("tc", "filter", "show", "dev", "eth0", "egress")
        return (
            sorted(each for each in held if each[1] != "link"),
            self.programs(),
            settings,
            qdiscs,
            re.sub(r"id \d+", "", filters),
        )


@contextmanager
def machine() -> Iterator[Net]:
    outside, node = names = [f"prep-{role}-{os.getpid()}" for role in ("outside", "node")]
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", outside, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", node)
        held = {outside: (LB, LB6), node: (NODE, NODE6)}
        for name, addresses in held.items():
            for address in addresses:
                six = ":" in address
                length, more = ("64", ["nodad"]) if six else ("24", [])
                run("ip", "-n", name, "address", "add", f"{address}/{length}", "dev", "eth0", *more)
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("nsenter", f"--net=/run/netns/{name}", "ethtool", "-K", "eth0", "tx", "off")
        for address in (CLIENT, CLIENT6):  # which nobody has here: its packets are made by hand
            run("ip", "-n", node, "neigh", "add", address, "lladdr", MAC_CLIENT, "dev", "eth0")
        yield Net(outside, node)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
