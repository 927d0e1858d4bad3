"""The interfaces of this machine: their addresses, what must be known to send frames out of them, and their places in
the map of interfaces.

XDP hands a frame to another interface's driver, which must have a way to take it (ndo_xdp_xmit). A veth has it only
while its peer has an XDP program or GRO; a bridge never has it. The kernel says so in the link's XDP features, and
drops the frames without a word if it is missing: so nodes behind such an interface count as not reachable. Kernels
before 6.3 do not say.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from socket import AF_INET, AF_INET6
from typing import Any

from gale.dataplane.hop import LINKS, NO_LINK, PUBLIC_LINK
from gale.dataplane.netlink import ask
from gale.dataplane.rtnetlink import NETLINK_GENERIC, Answer, Conversation, Question, attributes, number
from gale.errors import HostError

_FAMILIES = {4: AF_INET, 6: AF_INET6}
_SCOPE_LINK = 253

# linux/if_link.h, if_arp.h, if.h
_RTM_GETLINK = 18
_LINK = struct.Struct("=xxHiIxxxx")  # struct ifinfomsg: hardware type, interface, flags
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_INFO_KIND, _INFO_DATA = 1, 2
_VLAN_ID, _VLAN_PROTOCOL = 1, 5
_ETHER = 1
_UP, _LOWER_UP = 1 << 0, 1 << 16
_ETH_P_8021Q = b"\x81\x00"

# linux/genetlink.h, netdev.h
_GENERIC_HEAD = struct.Struct("=BBxx")  # struct genlmsghdr: command, version
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_GET_DEVICE, _DEVICE_IFINDEX, _DEVICE_XDP_FEATURES = 1, 1, 3
_NDO_XMIT = 1 << 2


@dataclass(frozen=True, slots=True)
class Link:
    """An interface, as frames for nodes see it.

    mac      six bytes; empty if it is no Ethernet interface
    up       it is on, and so is what it is connected to
    parent   of a VLAN's interface: the one below; else 0
    vlan     of a VLAN's interface: the number of the VLAN; -1 if it is not one of 802.1Q
    takes    frames that XDP hands over: True, False, or None where the kernel does not say
    """

    index: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    parent: int = 0
    vlan: int = 0
    takes: bool | None = None


def link_facts(kernel: Conversation, features: "Features", indexes: Iterable[int]) -> dict[int, Link]:
    """Of interfaces by their index; one that is gone is missing."""
    wanted = list(indexes)
    answers = kernel.ask_all([Question(_RTM_GETLINK, _LINK.pack(0, index, 0), {}) for index in wanted])
    return {
        index: _link(answer, features.takes(index))
        for index, answer in zip(wanted, answers, strict=True)
        if not answer.error
    }


def _link(answer: Answer, takes: bool | None) -> Link:
    kind, index, flags = _LINK.unpack(answer.head)
    found = answer.attributes
    parent, vlan = 0, 0
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    if info.get(_INFO_KIND, b"").rstrip(b"\0") == b"vlan":
        parent = number(found.get(_IFLA_LINK, b""))
        data = attributes(info.get(_INFO_DATA, b""))
        vlan = number(data.get(_VLAN_ID, b"")) if data.get(_VLAN_PROTOCOL, _ETH_P_8021Q) == _ETH_P_8021Q else -1
    mac = found.get(_IFLA_ADDRESS, b"") if kind == _ETHER else b""
    name = found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    up = flags & (_UP | _LOWER_UP) == _UP | _LOWER_UP
    return Link(index, name, mac, number(found.get(_IFLA_MTU, b"")), up, parent, vlan, takes)


class Features:
    """What drivers can do with XDP, from the kernel's netdev family of generic netlink."""

    def __init__(self) -> None:
        self._kernel = Conversation(NETLINK_GENERIC)
        (answer,) = self._kernel.ask(
            Question(_CONTROL, _GENERIC_HEAD.pack(_GET_FAMILY, 1), {_FAMILY_NAME: b"netdev\0"})
        )
        self._family = number(answer.attributes.get(_FAMILY_ID, b""))

    def takes(self, index: int) -> bool | None:
        """Whether an interface takes frames from XDP; None where the kernel does not say."""
        if not self._family:
            return None
        ifindex = {_DEVICE_IFINDEX: struct.pack("=I", index)}
        (answer,) = self._kernel.ask(Question(self._family, _GENERIC_HEAD.pack(_GET_DEVICE, 1), ifindex))
        value = answer.attributes.get(_DEVICE_XDP_FEATURES)
        return None if value is None else bool(number(value) & _NDO_XMIT)

    def close(self) -> None:
        self._kernel.close()


class Places:
    """The places of interfaces in the map `links`: given out when one is first used, and taken back only from those
    that are gone, because programs may be on their way with the number.

    `write` puts an interface into a place; `exists` tells whether one is still there.
    """

    def __init__(self, public: int, write: Callable[[int, int], None], exists: Callable[[int], bool]) -> None:
        self._write = write
        self._exists = exists
        self._places = {public: PUBLIC_LINK}

    def place(self, index: int) -> int:
        """NO_LINK if there is none left."""
        if index not in self._places:
            place = self._free()
            if place == NO_LINK:
                return NO_LINK
            self._write(place, index)
            self._places[index] = place
        return self._places[index]

    def _free(self) -> int:
        if len(self._places) < LINKS - 1:
            return max(self._places.values()) + 1
        for index, place in self._places.items():
            if place != PUBLIC_LINK and not self._exists(index):
                del self._places[index]
                return place
        return NO_LINK


def interfaces() -> dict[str, int]:
    """Interface name -> index."""
    return ask(lambda ipr: {link.get_attr("IFLA_IFNAME"): link["index"] for link in ipr.get_links()})


def interface_index(name: str) -> int:
    """Raises HostError, which names the interfaces that do exist."""
    known = interfaces()
    if name not in known:
        raise HostError(f"there is no interface {name!r} on this machine; there are {', '.join(sorted(known))}")
    return known[name]


def local_addresses(version: int = 4) -> dict[str, tuple[str, ...]]:
    """Every interface with its addresses of one IP version, in the order they were given to it; of IPv6 without those
    that are valid on a link alone."""

    def question(ipr: Any) -> dict[str, tuple[str, ...]]:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
        found: dict[str, tuple[str, ...]] = dict.fromkeys(names.values(), ())
        for entry in ipr.get_addr(family=_FAMILIES[version]):
            if entry["scope"] < _SCOPE_LINK or version == 4:
                found[names[entry["index"]]] += (entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"),)
        return found

    return ask(question)


def interface_addresses(name: str, version: int = 4) -> tuple[str, ...]:
    """The addresses of one interface. Raises HostError if it does not exist."""
    interface_index(name)
    return local_addresses(version)[name]
