"""The wires of a lab: bridges in the switch's namespace, and a veth from there to each interface of each instance.

What veth needs so that XDP works as on real cards:

- A frame redirected by XDP into a veth is lost unless the other end polls, which GRO turns on: so the switch's ends of
  the load balancers' interfaces have GRO on.
- A redirect forgets that a local socket left its checksum to the card: so clients compute their own.
"""

import array
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gale.errors import LabError
from gale.lab import netns
from gale.lab.topology import (
    OPERATOR_HOST,
    PREFIX_LENGTHS,
    Instance,
    Layout,
    Role,
    Route,
    Segment,
    Topology,
    address,
    network,
)

SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
ETHTOOL_SGRO = 0x2C
SYSCTL = Path("/proc/sys/net")
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def build(topology: Topology) -> None:
    """Make every namespace and wire of the lab. What a failure leaves behind, `remove` removes."""
    try:
        for namespace in topology.namespaces:
            netns.create(namespace)
            netns.inside(namespace, partial(_prepare, topology.layout))
        netns.inside(topology.switch_namespace, partial(_build_switch, topology))
        for instance in topology.instances:
            netns.inside(instance.namespace, partial(_configure, topology, instance))
    except (NetlinkError, OSError) as error:
        raise LabError(f"this machine does not let a network be built: {error}") from error


def remove(namespaces: list[str]) -> None:
    for namespace in namespaces:
        netns.remove(namespace)


def enable_kernel_routing(topology: Topology, lb: Instance) -> None:
    """Let the kernel of `lb` route between client and nodes without gale: what gale is measured against."""
    public, private = network(Segment.PUBLIC.number), network(Segment.PRIVATE.number)
    netns.inside(lb.namespace, lambda: _sysctl("ipv4/ip_forward", "1"))
    netns.inside(topology.client.namespace, lambda: set_routes([Route(private, str(lb.public))]))
    for node in topology.node_instances:
        netns.inside(node.namespace, lambda: set_routes([Route(public, str(lb.private))]))


def set_routes(routes: Iterable[Route]) -> None:
    """Give these routes to the namespace we are in, in the place of others to the same network."""
    with IPRoute() as kernel:
        for route in routes:
            metrics = {"metrics": {"advmss": route.advmss}} if route.advmss else {}
            family = FAMILIES[6 if ":" in route.network else 4]
            kernel.route("replace", family=family, dst=route.network, gateway=route.gateway, **metrics)


def _prepare(layout: Layout) -> None:
    """Before any link is there: IPv6 only where it is wanted, its addresses good at once, and no filter on bridges."""
    for scope in ("all", "default"):
        _sysctl(f"ipv6/conf/{scope}/disable_ipv6", "0" if layout.ipv6 else "1")
        _sysctl(f"ipv6/conf/{scope}/accept_dad", "0")
        _sysctl(f"ipv6/conf/{scope}/accept_ra", "0")
    _sysctl("bridge/bridge-nf-call-iptables", "0")
    with IPRoute() as route:
        route.link("set", index=1, state="up")


def _build_switch(topology: Topology) -> None:
    layout = topology.layout
    with IPRoute() as route:
        bridges = {}
        for segment in topology.segments:
            mtu = layout.mtu(segment)
            route.link("add", ifname=segment, kind="bridge", br_mcast_snooping=0, mtu=mtu, state="up")
            bridges[segment] = route.link_lookup(ifname=segment)[0]
        for version in layout.versions:
            _add_address(route, bridges[Segment.PRIVATE], Segment.PRIVATE, OPERATOR_HOST, version)
        for instance in topology.instances:
            target = os.open(netns.path(instance.namespace), os.O_RDONLY | os.O_CLOEXEC)
            try:
                for link in instance.links:
                    port, mtu = f"{instance.name}-{link.interface[:3]}", layout.mtu(link.segment)
                    peer = {"ifname": link.interface, "net_ns_fd": target, "mtu": mtu}
                    master = bridges[link.segment]
                    route.link("add", ifname=port, kind="veth", master=master, mtu=mtu, state="up", peer=peer)
                    if instance.role is Role.LOAD_BALANCER:
                        _ethtool(port, ETHTOOL_SGRO, 1)
            finally:
                os.close(target)


def _configure(topology: Topology, instance: Instance) -> None:
    if instance.role is Role.ROUTER:
        _sysctl("ipv4/ip_forward", "1")
        _sysctl("ipv4/conf/all/rp_filter", "0")
        _sysctl("ipv6/conf/all/forwarding", "1")
    with IPRoute() as route:
        for link in instance.links:
            index = route.link_lookup(ifname=link.interface)[0]
            for version in topology.layout.versions:
                _add_address(route, index, link.segment, link.host, version)
            route.link("set", index=index, state="up")
        if topology.layout.virtual and instance.role is Role.LOAD_BALANCER:
            for version, served in (entry for lb in topology.lbs for entry in lb.serves):
                whole = 32 if version == 4 else 128
                route.addr("add", index=1, family=FAMILIES[version], address=served, prefixlen=whole)
    set_routes(topology.routes(instance))
    if instance.role is Role.CLIENT:
        for link in instance.links:
            _ethtool(link.interface, ETHTOOL_STXCSUM, 0)
        # One connection per request uses up ports: take them all, and take them again soon.
        _sysctl("ipv4/ip_local_port_range", "1024 65535")
        _sysctl("ipv4/tcp_tw_reuse", "1")


def _add_address(route: IPRoute, index: int, segment: Segment, host: int, version: int) -> None:
    own = address(segment.number, host, version)
    route.addr("add", index=index, family=FAMILIES[version], address=own, prefixlen=PREFIX_LENGTHS[version])


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
