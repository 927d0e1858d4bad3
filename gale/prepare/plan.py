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
    """DECAP by XDP or CLAMP by TC, on an interface. `clsact`: it had a qdisc for TC programs before."""

    interface: str
    program: str
    contents: Contents
    clsact: bool = False


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


def begun(change: Change) -> Change:
    """What is remembered before it is made: enough to take it back, not enough to take it for made."""
    return msgspec.structs.replace(change, contents=Contents("")) if isinstance(change, Attached) else change


def keys(needed: Needs) -> frozenset[tuple[str, ...]]:
    """Of everything that must hold for these needs, whoever saw to it."""
    return frozenset(
        [
            *(("setting", name) for name in needed.settings),
            *(("address", address) for address in needed.addresses),
            *(("program", interface, DECAP) for interface in needed.tunnels),
            *(("program", interface, CLAMP) for interface in needed.exits),
        ]
    )


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
        *(Attached(i, CLAMP, contents, _had_clsact(i, before, host)) for i in sorted(needed.exits)),
        *(Address(address) for address in sorted(needed.addresses)),
    ]
    make = tuple(change for change in wanted if not _holds(change, before, host))
    kept = keys(needed)
    gone = tuple(change for change in before.values() if all_heard and key(change) not in kept)
    again = frozenset(key(change) for change in make if _is_missing(change, before, host))
    return Plan(undoing(gone), make, again)


def undoing(changes: Iterable[Change]) -> tuple[Change, ...]:
    """In the order they are taken back: addresses, programs, settings."""
    order = ("address", "program", "setting")
    return tuple(sorted(changes, key=lambda change: order.index(key(change)[0])))


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


def _had_clsact(interface: str, before: dict[tuple[str, ...], Change], host: Host) -> bool:
    known = before.get(("program", interface, CLAMP))
    return known.clsact if isinstance(known, Attached) else interface in host.clsact


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
