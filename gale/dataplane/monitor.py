"""What the kernel says by itself about neighbours, routes, interfaces and addresses: rtnetlink's multicast groups.

A burst can be more than the socket holds; then the kernel says so (ENOBUFS) and what was lost is not known: everything
may have changed.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gale.dataplane.neighbours import MAC_KNOWN, Neighbour
from gale.dataplane.rtnetlink import NETLINK_ROUTE, attributes, messages

# linux/rtnetlink.h
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE = 16, 17, 20, 21, 24, 25
_NEWNEIGH, _NEWRULE, _DELRULE, _NEWNEXTHOP, _DELNEXTHOP = 28, 32, 33, 104, 105
_GROUPS = (1, 3, 5, 7, 8, 9, 11, 19, 32)
"""Links, neighbours; IPv4 addresses, routes, rules; the same of IPv6; next hops."""

_LINK = struct.Struct("=xxxxi8x")  # struct ifinfomsg: interface
_ROUTE = struct.Struct("=BB10x")  # struct rtmsg: family, length of the destination in bits
_NEIGHBOUR = struct.Struct("=BxxxiHxx")  # struct ndmsg: family, interface, state
_DST, _LLADDR = 1, 2  # RTA_DST and NDA_DST; NDA_LLADDR

_LENGTHS = {socket.AF_INET: 4, socket.AF_INET6: 16}  # of an address
_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270
_SO_RCVBUFFORCE = 33
BUFFER = 4 << 20
_DATAGRAM_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class NeighbourLearned:
    neighbour: Neighbour
    mac: bytes


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """For the addresses that begin with `bits` bits of `prefix`, which has their length."""

    prefix: bytes
    bits: int


@dataclass(frozen=True, slots=True)
class LinkChanged:
    index: int


@dataclass(frozen=True, slots=True)
class EverythingChanged:
    """Possibly: nobody knows."""


Event = NeighbourLearned | RouteChanged | LinkChanged | EverythingChanged


class Monitor:
    """Listens in the network namespace it was opened in. `buffer`: bytes the socket holds."""

    def __init__(self, buffer: int = BUFFER) -> None:
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._kernel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
        self._kernel.setblocking(False)
        self._kernel.bind((0, 0))
        for group in _GROUPS:
            self._kernel.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        return self._kernel.fileno()

    def close(self) -> None:
        self._kernel.close()

    def read(self, most: int = 256) -> Iterator[Event]:
        """What has been said since, up to so many datagrams."""
        for _ in range(most):
            try:
                datagram = self._kernel.recv(_DATAGRAM_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield EverythingChanged()
                continue
            for kind, begin, end in messages(datagram):
                if event := _event(kind, datagram, begin, end):
                    yield event


def _event(kind: int, data: bytes, begin: int, end: int) -> Event | None:
    """None for what changes no way: a neighbour that is lost, for instance, was known at a MAC that stays good."""
    if kind == _NEWNEIGH:
        return _neighbour(data, begin, end)
    if kind in (_NEWROUTE, _DELROUTE):
        return _route(data, begin, end)
    if kind in (_NEWLINK, _DELLINK):
        (index,) = _LINK.unpack_from(data, begin)
        return LinkChanged(index)
    if kind in (_NEWADDR, _DELADDR, _NEWRULE, _DELRULE, _NEWNEXTHOP, _DELNEXTHOP):
        return EverythingChanged()
    return None


def _neighbour(data: bytes, begin: int, end: int) -> NeighbourLearned | None:
    family, index, state = _NEIGHBOUR.unpack_from(data, begin)
    if family not in _LENGTHS or not state & MAC_KNOWN:
        return None
    found = attributes(data, begin + _NEIGHBOUR.size, end)
    return NeighbourLearned((index, found.get(_DST, b"")), found.get(_LLADDR, b""))


def _route(data: bytes, begin: int, end: int) -> RouteChanged | None:
    family, bits = _ROUTE.unpack_from(data, begin)
    if family not in _LENGTHS:
        return None
    prefix = attributes(data, begin + _ROUTE.size, end).get(_DST, b"")
    return RouteChanged(prefix or bytes(_LENGTHS[family]), bits)
