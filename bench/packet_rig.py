"""The packet path of one mode with bench/packet.c behind it, filled with nodes and flows, for bench/packet.py."""

import ctypes
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from gale.dataplane.abi import verdicts
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.compiler import source
from gale.dataplane.hop import PUBLIC_LINK, Hop
from gale.dataplane.maps import Maps
from gale.dataplane.program import load
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.dataplane.syscall import PROG_TEST_RUN, bpf

SLOTS = 16384
NODES = 256
"""So many that a new flow seldom finds its port taken: all clients of bench/packet.c share 64,512 ports."""
PORT = 80
SERVICES = {4: "192.0.2.80", 6: "2001:db8::80"}
ELSEWHERE = {4: "192.0.2.81", 6: "2001:db8::81"}
SOURCES = {4: "10.0.0.1", 6: "fd00::1"}
NODE_LINK = 2
MACS = bytes.fromhex("020000000202020000000201")
MTU = 1500
SYN, ACK = 0x02, 0x10
PROTOCOLS = {"tcp": 6, "udp": 17}

THERE, BACK, NOWHERE = 0, 1 << 20, 1 << 21
"""Sections of the map of flows that take turns: to the nodes, to the clients, and one flow to no service."""

_STATE = struct.Struct("=9Q4IQ")
_START = {4: 2, 6: 6}
_WORDS = {4: 7, 6: 9}
_ADDRESS_WORD, _PORTS_WORD = 3, {4: 4, 6: 6}
_RUN = struct.Struct("=IIIIQQIIIIQQIII")
LIVE_FRAMES, LIVE_BATCH = 2, 64

End = tuple[str, int]


@dataclass(frozen=True)
class Family:
    """Frames of one IP version and transport protocol."""

    ip: int
    protocol: str


FAMILIES = tuple(Family(version, protocol) for version in (4, 6) for protocol in ("tcp", "udp"))


def settings(mode: str, flows: int, interface: str = "lo") -> DataplaneSettings:
    """Mode l3 tunnels each version in its own."""
    listeners = tuple(
        Listener("bench", SERVICES[family.ip], PORT, family.protocol, PORT, mode, family.ip) for family in FAMILIES
    )
    return DataplaneSettings(interface, interface, SOURCES[4], SOURCES[6], listeners, SLOTS, flows)


class Rig:
    """`first` and `flows` of a run choose the section of flows that take turns; 0 flows: never seen before.
    `path` stands in for the text of the packet path."""

    def __init__(
        self, mode: str, flows: int = 1 << 18, links: tuple[int, int] = (1, 1), path: bytes | None = None
    ) -> None:
        chosen = settings(mode, flows)
        extra = {"bench_public4": "xdp", "bench_public6": "xdp", "bench_empty": "xdp", "bench_parse": "xdp"}
        extra |= {"bench_send": "xdp", "bench_redirect": "xdp", "bench_sink": "xdp"}
        if mode == "l4":
            extra |= {"bench_private4": "tc", "bench_private6": "tc", "bench_empty_tc": "tc"}
            extra |= {"bench_verified4": "tc", "bench_verified6": "tc"}
        text = (path or source()) + b'\n#line 1 "bench/packet.c"\n' + (Path(__file__).parent / "packet.c").read_bytes()
        self.mode = mode
        self.program = load(chosen, text, extra)
        self.map = self.program.maps
        maps = Maps(self.program, chosen)
        maps.set_link(PUBLIC_LINK, links[0])
        maps.set_link(NODE_LINK, links[1])
        hop = Hop(MACS, NODE_LINK, 0, MTU, True)
        for number in range(1, NODES + 1):
            maps.set_node(number, *node_addresses(number), hop, hop)
        self.maps = maps
        self._moves = -1
        self.move_slots()
        self._flows = memoryview(self.map["bench_flows"].mmap()).cast("Q")

    def move_slots(self) -> None:
        """Each to the next node; the first time to the one that it begins with."""
        self._moves += 1
        owners = (1 + (slot + self._moves) % NODES for slot in range(SLOTS))
        self.maps.set_slots("bench", struct.pack(f"={SLOTS}H", *owners))

    def settle_slots(self) -> None:
        """As if none had moved."""
        self.maps.settle("bench", self.maps.tables["bench"].moved)

    def run(self, program: str, target: str, frame: bytes, first: int, flows: int, packets: int) -> int:
        """Nanoseconds per packet. `program` renews frames, `target` is what it jumps into."""
        self.prepare(frame, 6 if frame[12:14] == b"\x86\xdd" else 4, first, flows)
        jumps = self.map[
            "bench_tc" if program.endswith(("private4", "private6", "verified4", "verified6")) else "bench_xdp"
        ]
        jumps.update(0, self.program.fds[target])
        return run_repeatedly(self.program.fds[program], frame, packets)

    def prepare(self, frame: bytes, version: int, first: int, flows: int) -> None:
        """The frame as bench/packet.c writes it anew."""
        words = struct.unpack_from(f"={_WORDS[version]}Q", frame, _START[version])
        state = [*words, *[0] * (9 - len(words)), len(frame), first, flows, self._turn() if not flows else 0, 0]
        self.map["bench_state"].update(0, _STATE.pack(*state))

    def sunk(self) -> int:
        """Frames that came out of the last wire since `prepare`."""
        return int(self._state()[-1])

    def _turn(self) -> int:
        """Never seen before means: not in an earlier run either."""
        return int(self._state()[-2])

    def _state(self) -> tuple[int, ...]:
        return _STATE.unpack(self.map["bench_state"].lookup(0) or b"")

    def forget_flows(self) -> None:
        for name in ("flows", "returns"):
            memory = self.map[name].mmap()
            memory[:] = bytes(len(memory))

    def counters(self) -> dict[str, int]:
        totals = self.map["verdicts"].totals()
        return {verdict.name: totals[index][0] for index, verdict in enumerate(verdicts())}

    def put(self, first: int, frames: Iterable[bytes]) -> None:
        """Flows that take turns, by a frame of each."""
        words = array("Q")
        for frame in frames:
            version = 6 if frame[12:14] == b"\x86\xdd" else 4
            start = _START[version]
            words.append(int.from_bytes(frame[start + 8 * _ADDRESS_WORD :][:8], "little"))
            words.append(int.from_bytes(frame[start + 8 * _PORTS_WORD[version] :][:8], "little"))
        self._flows[2 * first : 2 * first + len(words)] = memoryview(words)

    def open_flows(self, family: Family, flows: int) -> None:
        """As many established flows: opened, answered, and acknowledged, in turn."""
        self.forget_flows()
        service = SERVICES[family.ip], PORT
        clients = [client(family.ip, number) for number in range(flows)]
        self.put(THERE, fast_frames(family, clients, service))
        public, private = f"bench_public{family.ip}", f"bench_private{family.ip}"
        node = node_addresses(1)[family.ip == 6], PORT
        self.run(public, "gale_public", frame(family, clients[0], service, SYN), THERE, flows, flows)
        answers = self._answers(family, clients)
        self.put(BACK, fast_frames(family, answers, (SOURCES[family.ip], 0)))
        answer = frame(family, node, (SOURCES[family.ip], 1), SYN | ACK)
        self.run(private, "gale_private", answer, BACK, flows, flows)
        self.run(public, "gale_public", frame(family, clients[0], service, ACK), THERE, flows, flows)

    def _answers(self, family: Family, clients: Sequence[End]) -> list[End]:
        """The node that answers each flow, and the port it answers to."""
        returns = self.map["returns"]
        source_ports = _column(returns, "source_port")
        ports = _column(returns, "client_port")
        numbers = _column(returns, "number")
        last_words = _column(returns, "client", 12, 4)
        wanted = {
            (int.from_bytes(ip_address(address).packed[-4:], "little"), _swapped(port)): index
            for index, (address, port) in enumerate(clients)
        }
        found: list[End] = [("", 0)] * len(clients)
        for last, port, number, source_port in zip(last_words, ports, numbers, source_ports, strict=True):
            if number and (index := wanted.get((last, port))) is not None:
                found[index] = node_addresses(number)[family.ip == 6], _swapped(source_port)
        there = [end for end in found if end[0]]
        if len(there) < 0.98 * len(clients):
            raise SystemExit(f"{len(clients)} flows, of which only {len(there)} are open: the tables are too full")
        return there + there[: len(clients) - len(there)]


def _column(table: BpfMap, name: str, offset: int = 0, size: int = 2) -> list[int]:
    """One field of every value of an array."""
    whole = memoryview(table.mmap())
    view = whole.cast("H") if size == 2 else whole.cast("I")
    begin = (int(getattr(table.Leaf, name).offset) + offset) // size
    return view[begin : table.stride * table.max_entries // size : table.stride // size].tolist()


def _swapped(port: int) -> int:
    return (port & 0xFF) << 8 | port >> 8


def node_addresses(number: int) -> tuple[str, str]:
    return f"10.0.{number // 200 + 1}.{number % 200 + 1}", f"fd00::{number + 1:x}:1"


def client(version: int, number: int) -> End:
    """The same as bench/packet.c makes of a number, from another network."""
    base = int(ip_address("100.64.0.0" if version == 4 else "2001:db8:1::"))
    return str(ip_address(base + number)), 1024 + number % 64512


def frame(family: Family, source: End, destination: End, flags: int = ACK) -> bytes:
    """A small frame, of 64 bytes in IPv4. Its checksums are not right, which costs the same."""
    if family.protocol == "tcp":
        inside = struct.pack("!HHIIBBHHH", source[1], destination[1], 1, 2, 0x50, flags, 1024, 0, 0) + bytes(10)
    else:
        inside = struct.pack("!HHHH", source[1], destination[1], 30, 1) + bytes(22)
    addresses = ip_address(source[0]).packed + ip_address(destination[0]).packed
    protocol = PROTOCOLS[family.protocol]
    if family.ip == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inside), 1, 0, 64, protocol, 0) + addresses
        return bytes(12) + b"\x08\x00" + ip + inside
    ip = struct.pack("!IHBB", 6 << 28, len(inside), protocol, 64) + addresses
    return bytes(12) + b"\x86\xdd" + ip + inside


def fast_frames(family: Family, sources: Sequence[End], destination: End) -> Iterable[bytes]:
    """Frames from each source. A destination without a port has that of the source, and the source the service's."""
    whole = bytearray(frame(family, sources[0], (destination[0], 1)))
    at = 14 + (12 if family.ip == 4 else 8)
    size = 4 if family.ip == 4 else 16
    ports = 14 + (20 if family.ip == 4 else 40)
    for address, port in sources:
        whole[at : at + size] = ip_address(address).packed
        pair = (port, destination[1]) if destination[1] else (PORT, port)
        struct.pack_into("!HH", whole, ports, *pair)
        yield bytes(whole)


def run_repeatedly(program_fd: int, packet: bytes, packets: int, live: bool = False) -> int:
    """Nanoseconds per packet, as the kernel says; of live frames it says nothing."""
    data = ctypes.create_string_buffer(packet, len(packet))
    flags = (LIVE_FRAMES, 0, LIVE_BATCH) if live else (0, 0, 0)
    request = _RUN.pack(program_fd, 0, len(packet), 0, ctypes.addressof(data), 0, packets, 0, 0, 0, 0, 0, *flags)
    _, answer = bpf(PROG_TEST_RUN, request)
    return int(_RUN.unpack_from(answer)[7])
