"""What a packet costs in nanoseconds: `python -m bench.packet [--json FILE]`, as root.

Every case runs in the kernel by BPF_PROG_TEST_RUN, on one CPU, a million packets at a time, with bench/packet.c around
the packet path to write each packet anew. Cases take turns within a round, because a machine's speed drifts, and each
stands beside its floor: the same program without the packet path. A figure is the median over the rounds of case minus
floor; its spread is the distance from the first to the third quartile. Not in it is what a driver and the kernel do
before and after the program, and that packets of a real network arrive in a colder cache.
"""

import argparse
import ctypes
import json
import os
import socket
import statistics
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.maps import Maps
from gale.dataplane.neighbours import NextHop
from gale.dataplane.program import load
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.dataplane.testrun import run_program

SLOTS = 16384
NODES = 256
"""So many that a new flow seldom finds its port taken: all clients of bench/packet.c share 64,512 ports."""

FLOWS = 100_000
VIP, PORT = "192.0.2.80", 80
ELSEWHERE = "192.0.2.81"
SOURCE = "10.0.0.1"
ACK, SYN = 0x10, 0x02

# Sections of the map of flows that take turns.
THERE = 0
BACK = 1 << 17
NOWHERE = (1 << 18) - 1

SETTINGS = DataplaneSettings("lo", "lo", SOURCE, None, (Listener("bench", VIP, PORT, "tcp", PORT),), SLOTS)


@dataclass(frozen=True)
class Case:
    """`first`, `flows`: the section of flows that take turns, each sending a packet with `flags`. `floor` may be ""."""

    name: str
    program: str
    floor: str
    flags: int
    first: int
    flows: int


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


CASES = [
    Case("empty", "bench_public_empty", "", ACK, THERE, 1),
    Case("parse only", "bench_public_parse", "bench_public_floor", ACK, THERE, 1),
    Case("no service", "bench_public", "bench_public_floor", ACK, NOWHERE, 1),
    *(Case("to the node", "bench_public", "bench_public_floor", ACK, THERE, flows) for flows in (1, 10_000, FLOWS)),
    *(Case("to the client", "bench_private", "bench_private_floor", ACK, BACK, flows) for flows in (1, 10_000, FLOWS)),
]
NEW = Case("new flow", "bench_public", "bench_public_floor", SYN, THERE, 0)
"""Each round begins with empty tables, and leaves room in them."""

NEW_IN_FULL_TABLES = replace(NEW, name="new flow, full")
"""The oldest flows make room for it. Measured last, since it leaves none of the open flows."""


class Bench:
    """The compiled programs, and maps with FLOWS open flows."""

    def __init__(self) -> None:
        source = (BPF_DIRECTORY / "gale.c").read_bytes() + (Path(__file__).parent / "packet.c").read_bytes()
        self._module = load(SETTINGS, source).module
        maps = Maps(self._module, SETTINGS)
        hop = NextHop("0.0.0.0", 1, bytes(6), bytes(6))
        for number in range(1, NODES + 1):
            maps.set_node(number, f"10.0.{number // 200 + 1}.{number % 200 + 1}", hop)
        maps.set_slots("bench", struct.pack(f"={SLOTS}H", *(1 + slot % NODES for slot in range(SLOTS))))
        self._open_flows()

    def run(self, program: str, case: Case, packets: int) -> int:
        """Nanoseconds per packet."""
        frame = tcp((SOURCE, PORT), (VIP, PORT), case.flags)
        state = self._module[b"bench_state"].Leaf()
        state.words[:] = struct.unpack_from("=7Q", frame, 2)
        state.first, state.flows, state.turn = case.first, case.flows, self._turn()
        self._module[b"bench_state"][ctypes.c_int(0)] = state
        kind = self._module.SCHED_CLS if "private" in program else self._module.XDP
        return run_program(self._module.load_func(program.encode(), kind).fd, frame, packets).duration_ns

    def forget_flows(self) -> None:
        for name in (b"flows", b"returns"):
            list(self._module[name].items_lookup_and_delete_batch())

    def _turn(self) -> int:
        """Never seen before means: not in an earlier run either."""
        return int(self._module[b"bench_state"][ctypes.c_int(0)].turn)

    def _open_flows(self) -> None:
        clients = [client(number) for number in range(FLOWS)]
        self._put(THERE, (overlay(who, (VIP, PORT)) for who in clients))
        self._put(NOWHERE, [overlay(clients[0], (ELSEWHERE, PORT))])
        self.run("bench_public", Case("open", "bench_public", "", SYN, THERE, FLOWS), FLOWS)
        keys = {(path.answer.client, path.answer.client_port): key for key, path in self._module[b"returns"].items()}
        answers = []
        for address, port in clients:
            key = keys[struct.unpack("=I", socket.inet_aton(address))[0], socket.htons(port)]
            node = socket.inet_ntoa(struct.pack("=I", key.node_address)), socket.ntohs(key.node_port)
            answers.append(overlay(node, (SOURCE, socket.ntohs(key.source_port))))
        self._put(BACK, answers)

    def _put(self, first: int, overlays: Iterable[tuple[int, int]]) -> None:
        table = self._module[b"bench_flows"]
        for number, words in enumerate(overlays, start=first):
            table[ctypes.c_int(number)] = table.Leaf(*words)


def client(number: int) -> tuple[str, int]:
    return socket.inet_ntoa(struct.pack("!I", (100 << 24) + (64 << 16) + number)), 1024 + number % 64512


def tcp(source: tuple[str, int], destination: tuple[str, int], flags: int) -> bytes:
    """A frame of 64 bytes. Its checksums are not right, which costs the same."""
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 50, 1, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    segment = struct.pack("!HHIIBBHHH", source[1], destination[1], 1, 1, 0x50, flags, 1024, 0, 0)
    return bytes(12) + b"\x08\x00" + ip + segment + bytes(10)


def overlay(source: tuple[str, int], destination: tuple[str, int]) -> tuple[int, int]:
    """The two words of a frame that bench/packet.c replaces: the addresses; the ports and the sequence number."""
    addresses, ports = struct.unpack_from("=2Q", tcp(source, destination, 0), 26)
    return addresses, ports


def measure(bench: Bench, cases: list[Case], rounds: int, packets: int) -> list[Figure]:
    runs: dict[Case, list[tuple[int, int]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            if case is NEW:
                bench.forget_flows()
            floor = bench.run(case.floor, case, packets) if case.floor else 0
            runs[case].append((bench.run(case.program, case, packets), floor))
    return [figure(case, runs[case]) for case in cases]


def figure(case: Case, runs: list[tuple[int, int]]) -> Figure:
    net = [whole - floor for whole, floor in runs]
    first, median, third = statistics.quantiles(net, n=4, method="inclusive")
    floor = statistics.median(floor for _, floor in runs)
    return Figure("l4", 4, "tcp", case.name, case.flows, median, floor, third - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--packets", type=int, default=1_000_000, help="per run, 1,000,000 unless given")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.cpu})
    bench = Bench()
    figures = measure(bench, CASES, arguments.rounds, arguments.packets)
    figures += measure(bench, [NEW], arguments.rounds, FLOWS)
    figures += measure(bench, [NEW_IN_FULL_TABLES], arguments.rounds, arguments.packets)
    print(f"{'case':<16}{'flows':>8}{'ns':>8}{'spread':>8}{'floor':>8}")
    for line in figures:
        print(f"{line.case:<16}{line.flows or 'new':>8}{line.ns:>8g}{line.spread:>8g}{line.floor_ns:>8g}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(line) for line in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
