"""The wires of a lab: two bridges in the switch's namespace, and a veth from there to each interface of each instance.

What veth needs so that XDP works as on real cards:

- A frame redirected by XDP into a veth is lost unless the other end polls, which GRO turns on: so the switch's ends of
  the load balancers' interfaces have GRO on.
- A redirect forgets that a local socket left its checksum to the card: so the client computes its own.
"""

import array
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gale.errors import LabError
from gale.lab import netns
from gale.lab.topology import OPERATOR_ADDRESS, PREFIX_LENGTH, PRIVATE_NET, PUBLIC_NET, Instance, Role, Topology

MTU = 1500
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
ETHTOOL_SGRO = 0x2C
SYSCTL = Path("/proc/sys/net")


def build(topology: Topology) -> None:
    """Make every namespace and wire of the lab. What a failure leaves behind, `remove` removes."""
    try:
        for namespace in topology.namespaces:
            netns.create(namespace)
            netns.inside(namespace, _prepare)
        netns.inside(topology.switch_namespace, partial(_build_switch, topology))
        for instance in topology.instances:
            netns.inside(instance.namespace, partial(_configure, instance))
    except (NetlinkError, OSError) as error:
        raise LabError(f"this machine does not let a network be built: {error}") from error


def remove(namespaces: list[str]) -> None:
    for namespace in namespaces:
        netns.remove(namespace)


def enable_kernel_routing(topology: Topology, lb: Instance) -> None:
    """Let the kernel of `lb` route between client and nodes without gale: what gale is measured against."""
    netns.inside(lb.namespace, lambda: _sysctl("ipv4/ip_forward", "1"))
    netns.inside(topology.client.namespace, lambda: _route(f"{PRIVATE_NET}.0", str(lb.public)))
    for node in topology.node_instances:
        netns.inside(node.namespace, lambda: _route(f"{PUBLIC_NET}.0", str(lb.private)))


def _prepare() -> None:
    """Before any link is there: no IPv6 (its discovery packets are noise here), and no packet filter on the bridges."""
    for setting in ("ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"):
        _sysctl(setting, "1")
    _sysctl("bridge/bridge-nf-call-iptables", "0")
    with IPRoute() as route:
        route.link("set", index=1, state="up")


def _build_switch(topology: Topology) -> None:
    with IPRoute() as route:
        bridges = {}
        for bridge in ("public", "private"):
            route.link("add", ifname=bridge, kind="bridge", br_mcast_snooping=0, mtu=MTU, state="up")
            bridges[bridge] = route.link_lookup(ifname=bridge)[0]
        route.addr("add", index=bridges["private"], address=OPERATOR_ADDRESS, prefixlen=PREFIX_LENGTH)
        for instance in topology.instances:
            target = os.open(netns.path(instance.namespace), os.O_RDONLY | os.O_CLOEXEC)
            try:
                for interface, _ in interfaces(instance):
                    port = f"{instance.name}-{interface[:3]}"
                    peer = {"ifname": interface, "net_ns_fd": target, "mtu": MTU}
                    route.link(
                        "add", ifname=port, kind="veth", master=bridges[interface], mtu=MTU, state="up", peer=peer
                    )
                    if instance.role is Role.LOAD_BALANCER:
                        _ethtool(port, ETHTOOL_SGRO, 1)
            finally:
                os.close(target)


def interfaces(instance: Instance) -> Iterator[tuple[str, str]]:
    """The names and addresses of an instance's interfaces."""
    if instance.public:
        yield "public", instance.public
    if instance.private:
        yield "private", instance.private


def _configure(instance: Instance) -> None:
    with IPRoute() as route:
        for interface, address in interfaces(instance):
            index = route.link_lookup(ifname=interface)[0]
            route.addr("add", index=index, address=address, prefixlen=PREFIX_LENGTH)
            route.link("set", index=index, state="up")
    if instance.role is Role.CLIENT:
        _ethtool("public", ETHTOOL_STXCSUM, 0)
        # One connection per request uses up ports: take them all, and take them again soon.
        _sysctl("ipv4/ip_local_port_range", "1024 65535")
        _sysctl("ipv4/tcp_tw_reuse", "1")


def _route(network: str, gateway: str) -> None:
    with IPRoute() as route:
        route.route("replace", dst=f"{network}/{PREFIX_LENGTH}", gateway=gateway)


def _sysctl(name: str, value: str) -> None:
    """Set it where the kernel has it: without IPv6 or bridge filters there is nothing to turn off."""
    with suppress(FileNotFoundError):
        (SYSCTL / name).write_text(value)


def _ethtool(interface: str, command: int, value: int) -> None:
    """One of the ethtool ioctls that take a number."""
    argument = array.array("I", [command, value])
    request = struct.pack("16sP16x", interface.encode(), argument.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, request)
