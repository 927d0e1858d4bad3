"""What a packet costs in nanoseconds: `python -m bench.packet [--json FILE]`, as root, or `make bench-packet`.

Every case runs in the kernel by BPF_PROG_TEST_RUN, on one CPU, a million packets at a time, through bench/packet.c,
which writes each packet anew and jumps into the program that is attached in production. Cases take turns within a
round, because a machine's speed drifts, and each stands beside its floor: the same without the packet path. A figure is
the median over the rounds of case minus floor; its spread is the distance from the first to the third quartile. Not in
it is what a driver and the kernel do before and after the program, and that real packets arrive in a colder cache. What
comes through wires (bench/packet_wire.py) has that in it: there `ns` is what the packet path adds to the least that a
forwarder can do.
"""

import argparse
import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.packet_rig import (
    BACK,
    ELSEWHERE,
    FAMILIES,
    NOWHERE,
    PORT,
    SERVICES,
    SOURCES,
    SYN,
    THERE,
    Family,
    Rig,
    client,
    fast_frames,
    frame,
    node_addresses,
)
from bench.packet_slots import change_slots_ns
from bench.packet_wire import through_wires

MANY = 1 << 20
MODES, FLOWS = ("l2", "l3", "l4"), (1, 10_000, 1 << 17, MANY)
MOVED_MOST = 10_000
"""More flows than that need not be known at a time, in slots that have moved."""
CAPACITY, CAPACITY_FOR_MANY = 1 << 18, 1 << 21
"""Flows that the tables of l4 are made for: as configured by default, and for a million."""


@dataclass(frozen=True)
class Case:
    """`first`, `flows`: the section of flows that take turns. `verdicts`: what nearly every packet must end in."""

    name: str
    family: Family
    program: str
    target: str
    floor: str
    frame: bytes
    first: int
    flows: int
    verdicts: frozenset[str]


@dataclass(frozen=True)
class Figure:
    """One line of the report: `ns` is what the packet path adds to `floor_ns`; both per packet."""

    mode: str
    ip: int
    protocol: str
    case: str
    flows: int
    ns: float
    floor_ns: float
    spread: float


def cases(mode: str, family: Family, flows: Iterable[int]) -> list[Case]:
    """With so many flows at a time; what has nothing to do with flows comes with the single one."""
    public = f"bench_public{family.ip}"
    known, service = client(family.ip, 0), (SERVICES[family.ip], PORT)
    forwarded = frozenset({{"l2": "bridged", "l3": "tunnelled", "l4": "forwarded"}[mode]})
    packet = frame(family, known, service)

    def inward(name: str, sent: bytes, first: int, count: int, ends: frozenset[str]) -> Case:
        return Case(name, family, public, "gale_public", "bench_empty", sent, first, count, ends)

    made = []
    for count in flows:
        made.append(inward("established", packet, THERE, count, forwarded))
        if mode == "l4":
            answer = frame(family, (node_addresses(1)[family.ip == 6], PORT), (SOURCES[family.ip], 1))
            for name, program in (("back to the client", "private"), ("back, verified by the card", "verified")):
                back = f"bench_{program}{family.ip}", "gale_private", "bench_empty_tc"
                made.append(Case(name, family, *back, answer, BACK, count, frozenset({"returned"})))
        if count == 1:
            parse = frozenset({"forwarded", "returned"})  # the counters that bench_parse uses
            made.append(Case("parse only", family, public, "bench_parse", "bench_empty", packet, THERE, 1, parse))
            elsewhere = frame(family, known, (ELSEWHERE[family.ip], PORT))
            made.append(inward("no service", elsewhere, NOWHERE, 1, frozenset({"no_service"})))
            made.append(inward("malformed", cut(packet), THERE, 1, frozenset({"malformed"})))
    return made


def new_flows(family: Family) -> Case:
    """Each packet is of a flow never seen before."""
    base = "10.0.0.0" if family.ip == 4 else "2001:db8:2::"
    sent = frame(family, (base, 1024), (SERVICES[family.ip], PORT), SYN)
    ends = frozenset({"opened"})
    return Case("new", family, f"bench_public{family.ip}", "gale_public", "bench_empty", sent, THERE, 0, ends)


def moved_slot(family: Family, flows: int) -> Case:
    """Connections that have stayed with the node before, in l2 and l3."""
    sent = frame(family, client(family.ip, 0), (SERVICES[family.ip], PORT))
    ends = frozenset({"stayed"})
    return Case(
        "slot has moved", family, f"bench_public{family.ip}", "gale_public", "bench_empty", sent, THERE, flows, ends
    )


def cut(packet: bytes) -> bytes:
    """Its IP header says that it is longer than the frame."""
    longer = bytearray(packet)
    longer[16 if packet[12:14] == b"\x08\x00" else 18] = 0x05
    return bytes(longer)


class Timing:
    """Net figures and floors of cases, as rounds go by."""

    def __init__(self, rig: Rig, packets: int) -> None:
        self._rig = rig
        self._packets = packets
        self.runs: dict[Case, list[tuple[int, int]]] = {}

    def once(self, case: Case) -> None:
        rig, packets = self._rig, self._packets
        if not case.flows:
            rig.forget_flows()
            packets = min(packets, CAPACITY // 2)
        where = case.frame, case.first, case.flows, packets
        floor = rig.run(case.program, case.floor, *where)
        before = rig.counters()
        whole = rig.run(case.program, case.target, *where)
        moved = {name: count - before[name] for name, count in rig.counters().items() if count != before[name]}
        if sum(moved.get(name, 0) for name in case.verdicts) < 0.97 * packets:
            raise SystemExit(f"{rig.mode} {case.family} {case.name}, {case.flows} flows: the packets ended in {moved}")
        self.runs.setdefault(case, []).append((whole, floor))

    def figures(self) -> list[Figure]:
        return [_figure(self._rig.mode, case, runs) for case, runs in self.runs.items()]


def _figure(mode: str, case: Case, runs: Sequence[tuple[int, int]]) -> Figure:
    net = [whole - floor for whole, floor in runs]
    first, median, third = statistics.quantiles(net, n=4, method="inclusive") if len(net) > 1 else [net[0]] * 3
    floor = statistics.median(floor for _, floor in runs)
    return Figure(
        mode, case.family.ip, case.family.protocol, case.name, case.flows, median, floor, round(third - first, 1)
    )


def measure(
    mode: str, rounds: int, packets: int, flows: Sequence[int], families: Sequence[Family] = FAMILIES
) -> list[Figure]:
    """All cases of a mode. Flows of l4 share their tables, so a version and protocol has them to itself."""
    rig = Rig(mode, CAPACITY_FOR_MANY if mode == "l4" and max(flows) == MANY else CAPACITY)
    figures = []
    for family in families:
        fill(rig, family, max(flows))
        timing = Timing(rig, packets)
        chosen = cases(mode, family, flows)
        for _ in range(rounds):
            for case in chosen:
                timing.once(case)
        if mode != "l4" and family.protocol == "tcp":
            rig.move_slots()
            for _ in range(rounds):
                for count in (count for count in flows if count <= MOVED_MOST):
                    timing.once(moved_slot(family, count))
            rig.settle_slots()
        if mode == "l4" and 1 in flows:
            for _ in range(rounds):
                timing.once(new_flows(family))
        figures += timing.figures()
    return figures


def fill(rig: Rig, family: Family, flows: int) -> None:
    rig.put(NOWHERE, [frame(family, client(family.ip, 0), (ELSEWHERE[family.ip], PORT))])
    if rig.mode == "l4":
        rig.open_flows(family, flows)
    else:
        clients = [client(family.ip, number) for number in range(flows)]
        rig.put(THERE, fast_frames(family, clients, (SERVICES[family.ip], PORT)))


def everything(rounds: int, packets: int, cpu: int) -> list[Figure]:
    figures = []
    for mode in MODES:
        few = [count for count in FLOWS if count < MANY or mode != "l4"]
        figures += measure(mode, rounds, packets, few)
        if mode == "l4":
            figures += measure(mode, rounds, packets, [MANY])
    for mode, forwarder, floor, spread in through_wires(rounds, packets, cpu):
        figures.append(Figure(mode, 4, "tcp", "through veth", 1024, forwarder - floor, floor, spread))
    median, spread = change_slots_ns(rounds)
    figures.append(Figure("l4", 4, "tcp", "slot table change", 0, median, 0, spread))
    return figures


def shown(figures: Iterable[Figure]) -> str:
    lines = [f"{'mode':<5}{'':<11}{'case':<20}{'flows':>8}{'ns':>9}{'spread':>8}{'floor':>8}"]
    for row in figures:
        what = f"{row.mode:<5}IPv{row.ip} {row.protocol:<6}{row.case:<20}{row.flows or '':>8}"
        lines.append(f"{what}{row.ns:>9g}{row.spread:>8g}{row.floor_ns:>8g}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 100,000 packets: a try, not a figure")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--packets", type=int, help="per run, 1,000,000 unless given")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.cpu})
    rounds, packets = (3, 100_000) if arguments.quick else (9, 1_000_000)
    figures = everything(arguments.rounds or rounds, arguments.packets or packets, arguments.cpu)
    print(shown(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(line) for line in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
