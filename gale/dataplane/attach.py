"""Puts programs on interfaces, and takes them off again; never those of others.

Programs stay when gale-lb ends, however it ends, and a start puts its own in the place of the old ones without a gap:

- XDP: the kernel swaps the program in one step, on condition that the old one is still the one we saw. The driver is
  tried first (native), then the kernel's generic hook, which every interface has but which costs an allocation.
- TC: the new filter is put before the old one, which is asked only about packets that mean nothing to the new one, and
  is taken away later. So a packet on its way back finds its flow in the tables of either.

gale knows its own programs by their names, and its filters by their name and priority as well.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from gale.dataplane.known import program_by_id, program_name
from gale.dataplane.links import interface_index
from gale.dataplane.netlink import ask, unless
from gale.dataplane.tcfilters import Filter, list_filters
from gale.errors import DataplaneError

# linux/if_link.h
_XDP_IF_NONE = 1 << 0
_XDP_GENERIC = 1 << 1
_XDP_NATIVE = 1 << 2
_XDP_IF_SAME = 1 << 4
_MODES = {"native": _XDP_NATIVE, "generic": _XDP_GENERIC}
_NO_PROGRAM = -1

# linux/pkt_sched.h, pkt_cls.h
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_ETH_P_ALL = 3
_DIRECT_ACTION = 1
_PRIORITY = 7070
_HANDLES = range(1, 100)


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where the packet path sits: `public_mode` is "native" or "generic"; TC only where answers come back (l4)."""

    public_interface: str
    public_mode: str
    private_interface: str | None

    @property
    def interfaces(self) -> dict[str, str]:
        """Interface -> how programs are attached to it."""
        found = {self.public_interface: self.public_mode}
        if self.private_interface:
            found[self.private_interface] = ", ".join(filter(None, [found.get(self.private_interface), "tc"]))
        return found


def xdp_program(interface: str) -> str | None:
    """The name of the XDP program on an interface; None if there is none. Raises HostError."""
    number = xdp_program_id(interface)
    return program_name(number) if number else None


def xdp_program_id(interface: str) -> int | None:
    index = interface_index(interface)
    return next(iter(ask(lambda ipr: _xdp_programs(ipr, index)).values()), None)


def interfaces_with(own: str) -> list[str]:
    """Those in this network namespace that have an XDP program of this name."""

    def request(ipr: Any) -> list[str]:
        return [
            link.get_attr("IFLA_IFNAME")
            for link in ipr.get_links()
            if any(program_name(number) == own for number in _xdp_of(link).values())
        ]

    return ask(request)


def attach_xdp(interface: str, descriptor: int, own: str) -> str:
    """Gives "native" or "generic". A program called `own` is replaced in one step; for another one DataplaneError."""
    index = interface_index(interface)
    return ask(lambda ipr: _attach_xdp(ipr, interface, index, descriptor, own))


def detach_xdp(interface: str, own: str) -> bool:
    """Takes the program of this name off; False if it is not there."""
    index = interface_index(interface)

    def request(ipr: Any) -> bool:
        mine = {mode: number for mode, number in _xdp_programs(ipr, index).items() if program_name(number) == own}
        for mode, number in mine.items():
            with _held(number) as present:
                ipr.link("set", index=index, xdp=_xdp(_NO_PROGRAM, _MODES[mode] | _XDP_IF_SAME, present))
        return bool(mine)

    return ask(request)


def attach_filter(interface: str, descriptor: int, name: str, direction: str = "ingress") -> None:
    """In the place of the filters of this name. Packets meet one or the other at any moment."""
    handle = add_filter(interface, descriptor, name, direction)
    remove_filters(interface, name, direction, but=handle)


def detach_filter(interface: str, name: str, direction: str = "ingress") -> None:
    """Takes the filters of this name off, and the qdisc that carried them, unless it carries another."""
    remove_filters(interface, name, direction)
    remove_clsact(interface)


def add_filter(interface: str, descriptor: int, name: str, direction: str = "ingress") -> int:
    """Puts a filter before those that are there. Gives its handle."""
    index = interface_index(interface)

    def request(ipr: Any) -> int:
        try:
            unless(errno.EEXIST, lambda: ipr.tc("add", "clsact", index))
            return _add_filter(ipr, index, descriptor, name, direction)
        except NetlinkError as error:
            raise DataplaneError(f"{interface}: TC filter refused: {error}") from error

    return ask(request)


def remove_filters(
    interface: str, name: str, direction: str = "ingress", *, but: int | None = None, only: int | None = None
) -> int:
    """Takes the filters of this name off: all, all but one handle, or only one. How many these were."""
    index = interface_index(interface)

    def request(ipr: Any) -> int:
        handles = [entry.handle for entry in _own(index, name, direction) if only in (None, entry.handle)]
        handles = [handle for handle in handles if handle != but]
        for handle in handles:
            ipr.tc("del-filter", "bpf", index, handle=handle, **_where(direction))
        return len(handles)

    return ask(request)


def has_clsact(interface: str) -> bool:
    index = interface_index(interface)
    return ask(lambda ipr: any(qdisc.get_attr("TCA_KIND") == "clsact" for qdisc in ipr.get_qdiscs(index)))


def remove_clsact(interface: str) -> None:
    """Unless it carries a filter."""
    index = interface_index(interface)

    def request(ipr: Any) -> None:
        if not any(list_filters(index, parent) for parent in _PARENTS.values()):
            unless(errno.EINVAL, lambda: ipr.tc("del", "clsact", index))

    ask(request)


def filters(interface: str, name: str, direction: str = "ingress") -> list[int]:
    """The ids of the programs in filters of this name, in the order in which packets meet them."""
    return [entry.program for entry in _own(interface_index(interface), name, direction)]


def filter_names(interface: str, direction: str = "ingress") -> list[str]:
    """The names of all programs in filters, whoever put them there."""
    return [entry.name for entry in list_filters(interface_index(interface), _PARENTS[direction]) if entry.name]


def _attach_xdp(ipr: Any, interface: str, index: int, descriptor: int, own: str) -> str:
    """Where a program is, its own mode is the only one possible."""
    there = _xdp_programs(ipr, index)
    for number in there.values():
        if (name := program_name(number)) != own:
            raise DataplaneError(f"{interface}: another XDP program is attached, {name or number!r}: take it off first")
    reasons = []
    for mode in there or _MODES:
        with _held(there.get(mode)) as present:
            condition = _XDP_IF_NONE if present is None else _XDP_IF_SAME
            try:
                ipr.link("set", index=index, xdp=_xdp(descriptor, _MODES[mode] | condition, present))
            except NetlinkError as error:
                reasons.append(f"{mode}: {error}")
            else:
                return mode
    raise DataplaneError(f"{interface}: XDP program refused, {'; '.join(reasons)}")


@contextmanager
def _held(number: int | None) -> Iterator[int | None]:
    """A file descriptor of the program with this id, if there is one."""
    descriptor = None if number is None else program_by_id(number)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _xdp(descriptor: int, flags: int, present: int | None) -> dict[str, list[tuple[str, int]]]:
    expected = [] if present is None else [("IFLA_XDP_EXPECTED_FD", present)]
    return {"attrs": [("IFLA_XDP_FD", descriptor), ("IFLA_XDP_FLAGS", flags), *expected]}


def _xdp_programs(ipr: Any, index: int) -> dict[str, int]:
    """Mode -> id of the program that is attached so."""
    return _xdp_of(ipr.get_links(index)[0])


def _xdp_of(link: Any) -> dict[str, int]:
    xdp = link.get_attr("IFLA_XDP")
    attributes = {"native": "IFLA_XDP_DRV_PROG_ID", "generic": "IFLA_XDP_SKB_PROG_ID"}
    found = {mode: xdp.get_attr(name) for mode, name in attributes.items()} if xdp else {}
    return {mode: number for mode, number in found.items() if number}


def _add_filter(ipr: Any, index: int, descriptor: int, name: str, direction: str) -> int:
    """With the first handle that is free: the kernel asks the filter that came last first."""
    taken = {entry.handle for entry in list_filters(index, _PARENTS[direction])}
    handle = next(handle for handle in _HANDLES if handle not in taken)
    ipr.tc(
        "add-filter", "bpf", index, handle=handle, fd=descriptor, name=name, flags=_DIRECT_ACTION, **_where(direction)
    )
    return handle


def _where(direction: str) -> dict[str, int]:
    return {"parent": _PARENTS[direction], "prio": _PRIORITY, "protocol": _ETH_P_ALL}


def _own(index: int, name: str, direction: str) -> list[Filter]:
    listed = list_filters(index, _PARENTS[direction])
    return [entry for entry in listed if entry.name == name and entry.priority == _PRIORITY]
