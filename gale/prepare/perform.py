"""Makes one change to the machine, or takes it back. Each says what it did, in a line of the log.

A change that was half made, or made by a gale-node that was killed in the middle of it, can be taken back: what is not
there is no error. A setting that somebody has changed since then is left as it is.
"""

import errno
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from typing import Any

import structlog
from pyroute2.netlink.exceptions import NetlinkError

from gale.dataplane.netlink import ask, unless
from gale.dataplane.program import Program
from gale.errors import GaleError, HostError
from gale.prepare import programs
from gale.prepare.needs import LOOPBACK
from gale.prepare.plan import Address, Attached, Change, Contents, Setting, key, undoing
from gale.prepare.survey import SYSCTL

log = structlog.get_logger()

_SCOPE_HOST = 254
_NODAD = 0x02
_FOREVER = 0xFFFFFFFF
_FULL = {4: 32, 6: 128}


class Workshop:
    """What changes are made with. The programs are loaded when they are first asked for with a set of contents."""

    def __init__(self) -> None:
        self._loaded: tuple[Contents, Program] | None = None

    def make(self, change: Change, again: bool) -> None:
        """`again`: it was made before, and somebody took it back. Raises GaleError."""
        tell = log.warning if again else log.info
        note = {"again": "somebody had taken it back"} if again else {}
        match change:
            case Setting(name, value, before):
                _explained(lambda: _write(name, value))
                tell("setting changed", setting=name, value=value, before=before, **note)
            case Address(address):
                _explained(lambda: unless(errno.EEXIST, lambda: _add(address)))
                tell("service address put on loopback, where nobody is answered for it", address=address, **note)
            case Attached(interface, name, contents, _):
                how = _explained(lambda: programs.attach(self._program(contents), name, interface))
                tell("program attached", interface=interface, program=name, mode=how, **note)
                if how == "generic":
                    log.warning("its driver refuses XDP: packets cost more in generic mode", interface=interface)

    def counted(self) -> Mapping[tuple[str, str], int]:
        """Packets by verdict and what becomes of such a packet, since programs were loaded; empty before that."""
        return programs.counted(self._loaded[1]) if self._loaded else {}

    def _program(self, contents: Contents) -> Program:
        if self._loaded is None or self._loaded[0] != contents:
            self._loaded = (contents, programs.loaded(contents))
        return self._loaded[1]


def take_back(change: Change) -> None:
    """Raises GaleError."""
    match change:
        case Setting(name, value, before):
            if _explained(lambda: _restore(name, value, before)):
                log.info("setting put back", setting=name, value=before)
        case Address(address):
            _explained(lambda: unless(errno.EADDRNOTAVAIL, lambda: _remove(address)))
            log.info("service address taken off loopback", address=address)
        case Attached(interface, name, _, clsact):
            if _explained(lambda: programs.detach(name, interface, clsact)):
                log.info("program taken off", interface=interface, program=name)


def take_back_all(changes: Collection[Change]) -> tuple[Change, ...]:
    """What could not be taken back; each is a line of the log."""
    left = []
    for change in undoing(changes):
        try:
            take_back(change)
        except GaleError as error:
            log.warning("cannot be undone", what=" ".join(key(change)), reason=str(error))
            left.append(change)
    return tuple(left)


def _write(name: str, value: int) -> None:
    (SYSCTL / name).write_text(str(value))


def _restore(name: str, value: int, before: int) -> bool:
    path = SYSCTL / name
    try:
        now = int(path.read_text())
    except FileNotFoundError:  # its interface is gone
        return False
    if now == before:
        return False
    if now != value:
        log.warning("somebody else changed this setting since then: left as it is", setting=name, value=now)
        return False
    path.write_text(str(before))
    return True


def _add(address: str) -> None:
    """IPv4: with scope host, so that nothing takes it as the source of what it sends elsewhere. IPv6 has no such scope
    for it; there a deprecated address is used only by whoever asks for it."""
    version = ip_address(address).version
    if version == 4:
        ask(lambda ipr: ipr.addr("add", index=_loopback(ipr), address=address, prefixlen=_FULL[4], scope=_SCOPE_HOST))
        return
    if _is_off(LOOPBACK):
        raise HostError(f"IPv6 is off on {LOOPBACK}: sysctl net.ipv6.conf.{LOOPBACK}.disable_ipv6=0")
    quiet = {"IFA_FLAGS": _NODAD, "IFA_CACHEINFO": {"ifa_preferred": 0, "ifa_valid": _FOREVER}}
    ask(lambda ipr: ipr.addr("add", index=_loopback(ipr), address=address, prefixlen=_FULL[6], **quiet))


def _is_off(interface: str) -> bool:
    try:
        return (SYSCTL / f"net/ipv6/conf/{interface}/disable_ipv6").read_text().strip() == "1"
    except FileNotFoundError:  # a kernel without IPv6
        return True


def _remove(address: str) -> None:
    length = _FULL[ip_address(address).version]
    ask(lambda ipr: ipr.addr("del", index=_loopback(ipr), address=address, prefixlen=length))


def _loopback(ipr: Any) -> int:
    (index,) = ipr.link_lookup(ifname=LOOPBACK)
    return int(index)


def _explained(action: Callable[[], Any]) -> Any:
    """The kernel's refusals as a HostError, in an operator's words."""
    try:
        return action()
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno
        if code in (errno.EPERM, errno.EACCES, errno.EROFS):
            raise HostError("not permitted: modes l2 and l3 need gale-node to run as root, or by its unit") from error
        raise HostError(str(error.args[-1]) if error.args else str(error)) from error
