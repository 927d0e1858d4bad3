"""From what is needed, what gale-node has changed before and what is there, to the changes to make and to take back.
Pure.

A change is remembered with all that its inverse needs. What was there before is no change: it is neither made nor ever
taken back. What was changed and is found missing is made again. What nobody needs any more is taken back, but only when
`all_heard`: a gale-node that has just been started, or a load balancer that is away, is no reason.

Arrangements come before addresses, so that no address stands on loopback for an instant while the machine would answer
for it on the wire; they are taken back in the opposite order.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from gale.prepare.needs import Host, Needs

DECAP, CLAMP = "gale_decap", "gale_clamp"
"""Names of the programs in bpf/decap.c and in the kernel, by which gale-node knows its own."""

LOOPBACK = "lo"


class Contents(msgspec.Struct, frozen=True):
    """What the programs' maps hold, and which build of the programs it is."""

    build: str
    load_balancers: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()


class Setting(msgspec.Struct, frozen=True, tag=True):
    """A sysctl, as a path below /proc/sys."""

    name: str
    value: int
    before: int


class Address(msgspec.Struct, frozen=True, tag=True):
    """A service's address on loopback."""

    address: str


class Attached(msgspec.Struct, frozen=True, tag=True):
    """DECAP by XDP or CLAMP by TC, on an interface."""

    interface: str
    program: str
    contents: Contents


Change = Setting | Address | Attached


def key(change: Change) -> tuple[str, ...]:
    """What is changed. There is one change of each."""
    match change:
        case Setting():
            return ("setting", change.name)
        case Address():
            return ("address", change.address)
        case Attached():
            return ("program", change.interface, change.program)


@dataclass(frozen=True, slots=True)
class Plan:
    """`back` is taken back first, then `make` is made, each in its order. `again`: keys of what was made before and is
    gone or different now."""

    back: tuple[Change, ...] = ()
    make: tuple[Change, ...] = ()
    again: frozenset[tuple[str, ...]] = frozenset()


def plan(needed: Needs, done: Iterable[Change], host: Host, build: str, all_heard: bool) -> Plan:
    before = {key(change): change for change in done}
    contents = _contents(needed, before.values(), build, all_heard)
    wanted: list[Change] = [
        *(Setting(name, value, _original(name, before, host)) for name, value in needed.settings.items()),
        *(Attached(interface, DECAP, contents) for interface in sorted(needed.tunnels)),
        *(Attached(interface, CLAMP, contents) for interface in sorted(needed.exits)),
        *(Address(address) for address in sorted(needed.addresses)),
    ]
    make = tuple(change for change in wanted if not _holds(change, before, host))
    kept = {key(change) for change in wanted}
    gone = tuple(change for change in before.values() if all_heard and key(change) not in kept)
    again = frozenset(key(change) for change in make if _is_missing(change, before, host))
    return Plan(undoing(gone), make, again)


def undoing(changes: Iterable[Change]) -> tuple[Change, ...]:
    """In the order they are taken back: addresses, programs, settings."""
    order = {Address: 0, Attached: 1, Setting: 2}
    return tuple(sorted(changes, key=lambda change: order[type(change)]))


def _holds(change: Change, before: dict[tuple[str, ...], Change], host: Host) -> bool:
    match change:
        case Setting():
            return host.fits(change.name, change.value)
        case Address():
            return change.address in host.addresses
        case Attached():
            same = before.get(key(change)) == change
            return same and (change.interface, change.program) in host.programs


def _is_missing(change: Change, before: dict[tuple[str, ...], Change], host: Host) -> bool:
    if isinstance(change, Attached):
        return key(change) in before and (change.interface, change.program) not in host.programs
    return key(change) in before


def _original(name: str, before: dict[tuple[str, ...], Change], host: Host) -> int:
    known = before.get(("setting", name))
    return known.before if isinstance(known, Setting) else host.settings.get(name, 0)


def _contents(needed: Needs, before: Iterable[Change], build: str, all_heard: bool) -> Contents:
    """Until all load balancers were heard, what the others told an earlier gale-node holds too: the kernels of load
    balancers forward also where gale-lb is away."""
    held = [change.contents for change in before if isinstance(change, Attached)] if not all_heard else []
    segments = {address: size for contents in held for address, size in contents.segments}
    return Contents(
        build,
        tuple(sorted(needed.load_balancers.union(*(contents.load_balancers for contents in held)))),
        tuple(sorted(needed.own.union(*(contents.own for contents in held)))),
        tuple(sorted((segments | dict(needed.segments)).items())),
    )
