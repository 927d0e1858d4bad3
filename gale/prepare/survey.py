"""The machine as it is: addresses, ways to the load balancers, settings, programs. Changes nothing, needs no rights."""

import socket
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from gale.dataplane.netlink import ask
from gale.prepare.needs import ARP_ANNOUNCE, ARP_IGNORE, LOOPBACK, RP_FILTER, Host, Way
from gale.prepare.programs import attached

SYSCTL = Path("/proc/sys")
_NET = Path("/proc/thread-self/net")
"""Of this thread's network namespace, which need not be the process's."""

# linux/if.h, if_addr.h
_IFF_UP, _IFF_LOOPBACK, _IFF_NOARP = 1, 1 << 3, 1 << 7
_TEMPORARY, _DEPRECATED, _TENTATIVE, _FAILED = 0x01, 0x20, 0x40, 0x08

_HOST_ROUTE = {4: "FFFFFFFF", 6: "80"}
_LINK_LOCAL, _MULTICAST = "fe80", "ff00"


def survey(load_balancers: Collection[str], programs: bool) -> Host:
    """`programs`: look for those of gale-node too, for which rights are needed. Raises OSError, NetlinkError."""

    def question(ipr: Any) -> Host:
        links = {link["index"]: link for link in ipr.get_links()}
        names = {index: link.get_attr("IFLA_IFNAME") for index, link in links.items()}
        held = [(names[entry["index"]], entry) for entry in ipr.get_addr() if entry["index"] in names]
        towards = {peer: way for peer in load_balancers if (way := _way(ipr, links, names, peer))}
        exits = frozenset(_exits()) & {names[i] for i, link in links.items() if not link["flags"] & _IFF_LOOPBACK}
        interfaces = exits | {way.interface for way in towards.values()}
        return Host(
            loopback=any(names[i] == LOOPBACK and link["flags"] & _IFF_UP for i, link in links.items()),
            addresses={_address(entry): name for name, entry in held},
            silent=frozenset(names[i] for i, link in links.items() if link["flags"] & (_IFF_LOOPBACK | _IFF_NOARP)),
            towards=towards,
            addresses6={name: _address(entry) for name, entry in reversed(held) if _is_good(entry)},
            exits=exits,
            mtus={names[index]: link.get_attr("IFLA_MTU") for index, link in links.items()},
            settings=dict(_settings(interfaces)),
            clsact=frozenset(names[q["index"]] for q in ipr.get_qdiscs() if q.get_attr("TCA_KIND") == "clsact"),
        )

    host = ask(question)
    interfaces = host.exits | {name for way in host.towards.values() for name in (way.interface, way.device) if name}
    return replace(host, programs=frozenset(attached(interfaces))) if programs else host


def _way(ipr: Any, links: dict[int, Any], names: dict[int, str], peer: str) -> Way | None:
    try:
        (route,) = ipr.route("get", dst=peer)
    except NetlinkError:  # there is none
        return None
    index = route.get_attr("RTA_OIF")
    if index not in names:  # made since they were listed
        return None
    return Way(names[index], route.get_attr("RTA_PREFSRC") or "", _below(links[index], names))


def _below(link: Any, names: dict[int, str]) -> str:
    """The device that a VLAN is on; empty for all else, and where it is in another network namespace."""
    kind = link.get_attr("IFLA_LINKINFO") and link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND")
    if kind != "vlan" or link.get_attr("IFLA_LINK_NETNSID") is not None:
        return ""
    return names.get(link.get_attr("IFLA_LINK"), "")


def _address(entry: Any) -> str:
    return str(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"))


def _is_good(entry: Any) -> bool:
    """A global IPv6 address that others may use for as long as the machine has it."""
    flags = entry.get_attr("IFA_FLAGS") or entry["flags"]
    passing = flags & (_TEMPORARY | _DEPRECATED | _TENTATIVE | _FAILED)
    return entry["family"] == socket.AF_INET6 and entry["scope"] == 0 and not passing


def _exits() -> Iterator[str]:
    """The interface of every route to more than a single machine. Read as text: routers have a million of them."""
    for line in _lines("route"):
        interface, _, _, _, _, _, _, mask, *_ = line.split()
        if mask != _HOST_ROUTE[4]:
            yield interface
    for line in _lines("ipv6_route"):
        destination, length, *_, interface = line.split()
        if length != _HOST_ROUTE[6] and not destination.startswith((_LINK_LOCAL, _MULTICAST)):
            yield interface


def _lines(name: str) -> Iterator[str]:
    """Of a table of the kernel's; none if it has no such protocol."""
    try:
        text = (_NET / name).read_text()
    except FileNotFoundError:
        return
    for line in text.splitlines():
        if not line.startswith("Iface"):
            yield line


def _settings(interfaces: Collection[str]) -> Iterator[tuple[str, int]]:
    for name in (ARP_IGNORE, ARP_ANNOUNCE, RP_FILTER, *(f"net/ipv4/conf/{each}/rp_filter" for each in interfaces)):
        try:
            yield name, int((SYSCTL / name).read_text())
        except FileNotFoundError:  # an interface that went away meanwhile
            continue
