"""Puts the programs on their interfaces, and takes them off again.

The programs stay when gale-lb ends, however it ends. A start puts its own in the place of the old ones: the kernel
swaps an XDP program, and a filter with the same handle and priority, in one step.

XDP is tried in the driver first (native), then in the kernel's generic hook, which every interface has but which costs
an allocation per packet. gale touches no program that is not its own, by its name.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from gale.dataplane.links import interface_index
from gale.dataplane.netlink import ask
from gale.dataplane.program import PRIVATE_PROGRAM, PUBLIC_PROGRAM, Program
from gale.dataplane.syscall import program_name
from gale.errors import DataplaneError

# linux/if_link.h
_XDP_GENERIC = 1 << 1
_XDP_NATIVE = 1 << 2
_MODES = {"native": _XDP_NATIVE, "generic": _XDP_GENERIC}
_NO_PROGRAM = -1

# linux/pkt_sched.h, pkt_cls.h
_CLSACT = 0xFFFF0000
_INGRESS = 0xFFFFFFF2
_EGRESS = 0xFFFFFFF3
_ETH_P_ALL = 3
_DIRECT_ACTION = 1
_PRIORITY = 7070
_HANDLE = 1


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where the programs sit: `public_mode` is "native" or "generic"; the private side always has a TC filter."""

    public_interface: str
    public_mode: str
    private_interface: str


def attach(public: str, private: str, program: Program) -> Attachment:
    """The way back first: the first packet that goes to a node must find it. Raises HostError, DataplaneError."""
    public_index, private_index = interface_index(public), interface_index(private)
    ask(lambda ipr: _attach_filter(ipr, private, private_index, program.private_fd))
    return Attachment(public, ask(lambda ipr: _attach_xdp(ipr, public, public_index, program.public_fd)), private)


def detach(public: str, private: str) -> None:
    """Takes gale's programs off, and nothing else. Nothing to take off is no error."""
    public_index, private_index = interface_index(public), interface_index(private)
    ask(lambda ipr: _detach_xdp(ipr, public_index))
    ask(lambda ipr: _detach_filter(ipr, private_index))


def _attach_xdp(ipr: Any, name: str, index: int, program_fd: int) -> str:
    present = _xdp_program(ipr, index)
    if present not in (None, PUBLIC_PROGRAM):
        raise DataplaneError(f"{name}: another XDP program is attached, {present!r}: take it off first")
    reasons = []
    for mode, flag in _MODES.items():
        try:
            ipr.link("set", index=index, xdp=_xdp(program_fd, flag))
        except NetlinkError as error:
            reasons.append(f"{mode}: {error}")
        else:
            return mode
    raise DataplaneError(f"{name}: XDP program refused, {'; '.join(reasons)}")


def _detach_xdp(ipr: Any, index: int) -> None:
    if _xdp_program(ipr, index) == PUBLIC_PROGRAM:
        ipr.link("set", index=index, xdp=_xdp(_NO_PROGRAM, 0))


def _xdp(program_fd: int, flags: int) -> dict[str, list[tuple[str, int]]]:
    return {"attrs": [("IFLA_XDP_FD", program_fd), ("IFLA_XDP_FLAGS", flags)]}


def _xdp_program(ipr: Any, index: int) -> str | None:
    xdp = ipr.get_links(index)[0].get_attr("IFLA_XDP")
    program_id = xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else None
    return program_name(program_id) if program_id else None


def _attach_filter(ipr: Any, name: str, index: int, program_fd: int) -> None:
    try:
        _unless(errno.EEXIST, lambda: ipr.tc("add", "clsact", index))
        ipr.tc(
            "replace-filter",
            "bpf",
            index,
            handle=_HANDLE,
            parent=_INGRESS,
            prio=_PRIORITY,
            protocol=_ETH_P_ALL,
            fd=program_fd,
            name=PRIVATE_PROGRAM,
            flags=_DIRECT_ACTION,
        )
    except NetlinkError as error:
        raise DataplaneError(f"{name}: TC filter refused: {error}") from error


def _detach_filter(ipr: Any, index: int) -> None:
    """The qdisc that carried the filter goes too, unless it carries someone else's."""
    for entry in _filters(ipr, index, _INGRESS):
        options = entry.get_attr("TCA_OPTIONS")
        if entry.get_attr("TCA_KIND") == "bpf" and options and options.get_attr("TCA_BPF_NAME") == PRIVATE_PROGRAM:
            ipr.tc("del-filter", "bpf", index, handle=_HANDLE, parent=_INGRESS, prio=_PRIORITY, protocol=_ETH_P_ALL)
    if not _filters(ipr, index, _INGRESS) and not _filters(ipr, index, _EGRESS):
        _unless(errno.EINVAL, lambda: ipr.tc("del", "clsact", index))


def _filters(ipr: Any, index: int, parent: int) -> list[Any]:
    return [entry for entry in ipr.get_filters(index=index, parent=parent) if entry.get_attr("TCA_OPTIONS")]


def _unless(code: int, request: Callable[[], object]) -> None:
    """Does the request; that it has been done already, which the kernel says with `code`, is no error."""
    try:
        request()
    except NetlinkError as error:
        if error.code != code:
            raise
