"""The programs of bpf/decap.c: loaded, their maps filled, put on interfaces and taken off again.

They hold on to their maps, so both stay when gale-node ends, however it ends. New contents are a new load: the maps are
full before a program takes its predecessor's place, and the kernel exchanges the two in one step.

Where gale has a folder in the BPF file system the XDP program is pinned, before it is attached, so that a gale-node
with few rights knows it again (gale/dataplane/known.py).

    /sys/fs/bpf/gale/node-<interface>-<network namespace>/decap/programs/gale_decap-<id>
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from gale.dataplane.abi import BPF_DIRECTORY, verdicts
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
from gale.dataplane.known import OWN, PROGRAMS, folder_name
from gale.dataplane.links import interfaces
from gale.dataplane.program import Program, load_source
from gale.dataplane.syscall import pin, program_info
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


def counted(program: Program) -> dict[tuple[str, str], int]:
    """Packets by verdict and what becomes of such a packet. The programs of one load count together."""
    totals = program.maps["decap_verdicts"].totals()
    return {(it.name, it.action.value): totals[index][0] for index, it in enumerate(verdicts("decap.c"))}


def attach(program: Program, name: str, interface: str) -> str:
    """How: "native" or "generic" for XDP, else "tc"."""
    if name == DECAP:
        pinned = _pin(program.fds[name], interface)
        how = attach_xdp(interface, program.fds[name], name)
        _unpin(interface, but=pinned)
        return how
    attach_filter(interface, program.fds[name], name, "egress")
    return "tc"


def detach(name: str, interface: str, clsact: bool) -> bool:
    """False if there is nothing to take off. `clsact`: the interface had a qdisc for TC programs before."""
    if interface not in interfaces():
        _unpin(interface)
        return False
    if name == DECAP:
        taken = detach_xdp(interface, name)
        _unpin(interface)
        return taken
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


def _folder(interface: str) -> Path:
    return OWN / f"node-{folder_name(interface)}" / "decap" / PROGRAMS


def _pin(descriptor: int, interface: str) -> str:
    """Gives the name; one that is pinned already keeps it."""
    name = f"{DECAP}-{program_info(descriptor).id}"
    if OWN.is_dir():
        _folder(interface).mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            pin(descriptor, str(_folder(interface) / name))
    return name


def _unpin(interface: str, but: str = "") -> None:
    """What was pinned for an interface, and its folders once they are empty."""
    folder = _folder(interface)
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.name != but:
            entry.unlink()
    if not but:
        for empty in (folder, folder.parent, folder.parent.parent):
            empty.rmdir()
