"""The programs of bpf/decap.c: loaded, their maps filled, put on interfaces and taken off again.

They hold on to their maps, so both stay when gale-node ends, however it ends. New contents are a new load: the maps are
full before a program takes its predecessor's place, and the kernel exchanges the two in one step.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping

from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.address import packed
from gale.dataplane.attach import (
    attach_filter,
    attach_xdp,
    detach_xdp,
    filters,
    has_clsact,
    remove_clsact,
    remove_filters,
    xdp_program,
)
from gale.dataplane.compiler import source
from gale.dataplane.links import interfaces
from gale.dataplane.program import Program, load_source
from gale.prepare.plan import CLAMP, DECAP, Contents

_SOURCES = ("decap.c", "address.h", "csum.h")
_ANY = 1  # value where only the key counts


def build() -> str:
    """Names the version of the programs: those of another gale are replaced."""
    text = b"".join((BPF_DIRECTORY / name).read_bytes() for name in _SOURCES)
    return hashlib.sha256(text).hexdigest()[:16]


def loaded(contents: Contents) -> Program:
    """Raises HostError for a machine that cannot, DataplaneError for what the kernel refuses."""
    program = load_source(source("decap.c"), [], {DECAP: "xdp", CLAMP: "tc"})
    _fill(program, "load_balancers", dict.fromkeys(contents.load_balancers, _ANY))
    _fill(program, "own_addresses", dict.fromkeys(contents.own, _ANY))
    _fill(program, "segments", dict(contents.segments))
    return program


def _fill(program: Program, name: str, entries: Mapping[str, int]) -> None:
    program.maps[name].update_many({packed(address): struct.pack("=I", value) for address, value in entries.items()})


def attach(program: Program, name: str, interface: str) -> str:
    """How: "native" or "generic" for XDP, else "tc"."""
    if name == DECAP:
        return attach_xdp(interface, program.fds[name], name)
    attach_filter(interface, program.fds[name], name, "egress")
    return "tc"


def detach(name: str, interface: str, clsact: bool) -> bool:
    """False if there is nothing to take off. `clsact`: the interface had a qdisc for TC programs before."""
    if interface not in interfaces():
        return False
    if name == DECAP:
        return detach_xdp(interface, name)
    taken = remove_filters(interface, name, "egress") > 0
    if not clsact and has_clsact(interface):
        remove_clsact(interface)
    return taken


def attached(among: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(interface, program) of those that are gale-node's."""
    for interface in among:
        if xdp_program(interface) == DECAP:
            yield interface, DECAP
        if filters(interface, CLAMP, "egress"):
            yield interface, CLAMP
