"""One load balancer's programs and maps for mode l4, without interfaces: packets go in and out by BPF_PROG_TEST_RUN.

Every packet that goes through is seen to end in exactly one verdict, and to be counted for a service and a node if that
verdict says that it went on.
"""

import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scapy.packet import Packet

from gale.dataplane import jiffies, listeners
from gale.dataplane.abi import Action, verdicts
from gale.dataplane.address import unpacked
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.compiler import source
from gale.dataplane.hop import NO_HOP, Hop
from gale.dataplane.maps import Maps
from gale.dataplane.program import Secrets, load
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.dataplane.testrun import run_program
from gale.dataplane.words import FLAGS_SHIFT, birth_of, flags, flags_of
from tests.packet.packets import (
    HEADER,
    NODE_A,
    NODE_B,
    NODE_C,
    NODE_MACS,
    PRIVATE_MAC,
    SECOND_VIP,
    SIX,
    SOURCE,
    TLS,
    VIP,
    WEB,
    WEB_ON_NODES,
    difference,
    six,
)

SLOTS = 64
FLOWS = 1 << 15
"""So that each port of a node has a place of its own: as many places as there are ports."""
NUMBERS = {NODE_A: 1, NODE_B: 2, NODE_C: 3}
PRIVATE_LINK = 2
LO = 1
MTU = 1500

SETTINGS = DataplaneSettings(
    public_interface="lo",
    private_interface="lo",
    source_address=SOURCE,
    source_address6=SIX[SOURCE],
    listeners=tuple(
        Listener(service, address, port, protocol, target_port)
        for service, addresses, port, target_port in (
            ("web", (VIP, SECOND_VIP), WEB, WEB_ON_NODES),
            ("tls", (VIP,), TLS, TLS),
        )
        for address in (*addresses, *(SIX[one] for one in addresses))
        for protocol in ("tcp", "udp")
    ),
    slots=SLOTS,
    flows=FLOWS,
)

XDP_ACTIONS = {Action.DROP: 1, Action.PASS: 2, Action.REDIRECT: 4, Action.REPLY: 4}
TC_ACTIONS = {Action.DROP: 2, Action.PASS: 0xFFFFFFFF, Action.REDIRECT: 7}
ACTIONS = {verdict.name: verdict.action for verdict in verdicts()}
NAMES = tuple(ACTIONS)
IN, OUT = ("forwarded", "opened", "error_forwarded", "bridged"), ("returned", "error_returned")

VERIFIED = b"""
int verified_private(struct __sk_buff *skb) {
    bpf_csum_level(skb, BPF_CSUM_LEVEL_INC);
    return private_side(skb);
}
"""
"""For a packet whose transport checksum a network card has verified."""

STAMP = 0xFFFFFFFF
SYN, SYN_ACK = 0x02, 0x12
WORD = 8


@dataclass(frozen=True)
class Outcome:
    """The verdict's name, and the frame as the program left it."""

    verdict: str
    packet: bytes

    def must_be(self, verdict: str, packet: Packet | bytes) -> None:
        """The whole frame, with lengths and checksums as scapy computes them."""
        assert self.verdict == verdict
        assert not (text := difference(self.packet, bytes(packet))), text


@dataclass(frozen=True)
class Entry:
    """Of `flows` or `returns`. `flags`: their names in flow.h."""

    place: int
    client: str
    client_port: int
    listener: int
    node: int
    source_port: int
    flags: frozenset[str]
    birth: int
    age_s: float


class Table:
    """The memory of `flows` or `returns`, shared with the kernel."""

    def __init__(self, table: BpfMap) -> None:
        self.map = table
        self.memory = memoryview(table.mmap())[: table.stride * table.max_entries]
        self.words = self.memory.cast("Q")[table.Leaf.word.offset // WORD :: table.stride // WORD]
        self._zero = bytes(len(self.memory))

    def clear(self) -> None:
        self.memory[:] = self._zero

    def places(self) -> list[int]:
        return [place for place, word in enumerate(self.words.tolist()) if word]

    def age(self, ticks: int) -> None:
        """As if nothing had happened for that long."""
        words = self.words
        for place in self.places():
            words[place] = words[place] & ~STAMP | (words[place] - ticks & STAMP)

    def mark(self, flag: str) -> None:
        bit = flags()[flag] << FLAGS_SHIFT
        for place in self.places():
            self.words[place] |= bit

    def entries(self) -> list[Entry]:
        """Those in use."""
        known, used, clock = flags(), flags()["used"], jiffies.now()
        found = []
        for place in self.places():
            leaf = self.map.Leaf.from_buffer(self.memory, place * self.map.stride)
            bits = flags_of(leaf.word)
            if bits & used:
                found.append(
                    Entry(
                        place,
                        unpacked(bytes(leaf.client)),
                        socket.ntohs(leaf.client_port),
                        leaf.listener,
                        getattr(leaf, "number", leaf.node),
                        socket.ntohs(leaf.source_port),
                        frozenset(name for name, bit in known.items() if bits & bit),
                        birth_of(leaf.word),
                        (clock - leaf.word & STAMP) / jiffies.per_second(),
                    )
                )
        return found


class Balancer:
    def __init__(self, settings: DataplaneSettings = SETTINGS, secrets: Secrets | None = None) -> None:
        text, extra = source() + VERIFIED, {"verified_private": "tc"}
        self.program = load(settings, text, extra, secrets=secrets, modes=("l2", "l3"))
        self.flows, self.returns = (Table(self.program.maps[name]) for name in ("flows", "returns"))
        self.settings = self._first = settings
        self.reset()

    def reset(self) -> None:
        """No flows; NODE_A and NODE_B reachable, NODE_C not; NODE_A owns every slot of both services."""
        self.forget_flows()
        self.table("fragments").clear()
        self.table("answer_rate").clear()
        self.table("takeover").update(0, 0)
        self.begin(self._first)

    def begin(self, settings: DataplaneSettings, directory: listeners.Directory | None = None) -> None:
        """The maps as a start of gale-lb writes them."""
        self.settings = settings
        self.maps = Maps(self.program, settings, directory)
        self.maps.set_link(PRIVATE_LINK, LO)
        self.reset_nodes()
        for service in settings.services:
            self.set_slots(NODE_A, service)

    def reset_nodes(self) -> None:
        for address, number in NUMBERS.items():
            self.set_node(number, address)

    def public(self, packet: Packet | bytes) -> Outcome:
        return self._run(self.program.public_fd, XDP_ACTIONS, bytes(packet))

    def private(self, packet: Packet | bytes, verified: bool = False) -> Outcome:
        program_fd = self.program.fds["verified_private"] if verified else self.program.private_fd
        assert program_fd is not None
        return self._run(program_fd, TC_ACTIONS, bytes(packet))

    def _run(self, program_fd: int, actions: Mapping[Action, int], packet: bytes) -> Outcome:
        before, traffic_before = self.counters(), self.traffic()
        run = run_program(program_fd, packet)
        moved = {name: count - before[name] for name, count in self.counters().items() if count != before[name]}
        assert list(moved.values()) == [1], f"counters moved: {moved}"
        (verdict,) = moved
        assert run.returned == actions[ACTIONS[verdict]]
        counted = {
            who: tuple(now - then for now, then in zip(after, traffic_before[who], strict=True))
            for who, after in self.traffic().items()
            if after != traffic_before[who]
        }
        assert list(counted.values()) == traffic_of(verdict, packet), f"traffic of {verdict}: {counted}"
        return Outcome(verdict, run.packet)

    def counters(self) -> Mapping[str, int]:
        return {name: total for name, (total,) in zip(NAMES, self.table("verdicts").totals().values(), strict=True)}

    def traffic(self) -> dict[str, tuple[int, ...]]:
        """By name of service and address of node: packets and bytes in, likewise out, new flows."""
        services = {name: self._traffic("service_traffic", number) for number, name in enumerate(SETTINGS.services)}
        return services | {node: self._traffic("node_traffic", number) for node, number in NUMBERS.items()}

    def _traffic(self, name: str, number: int) -> tuple[int, ...]:
        copies = struct.iter_unpack("=5Q", self.table(name).lookup(number) or b"")
        return tuple(map(sum, zip(*copies, strict=True)))

    def set_node(self, number: int, address: str, address6: str | None = None, **hop: Any) -> None:
        """`hop`: what differs from the way to a node on the link, by both IP versions."""
        way = NO_HOP
        if address != NODE_C:
            macs = bytes.fromhex((NODE_MACS.get(address, NODE_MACS[NODE_A]) + PRIVATE_MAC).replace(":", ""))
            way = Hop(**{"macs": macs, "link": PRIVATE_LINK, "mtu": MTU, "on_link": True, **hop})
        address6 = six(address) if address6 is None else address6
        self.maps.set_node(number, address, address6, way, way if address6 else NO_HOP)

    def set_slots(self, address: str | None, service: str = "web") -> None:
        """One node owns every slot; None: nobody does."""
        number = NUMBERS[address] if address else 0
        self.maps.set_slots(service, struct.pack("=H", number) * SLOTS)

    def set_owners(self, owners: Iterable[int], service: str = "web") -> None:
        self.maps.set_slots(service, struct.pack(f"={SLOTS}H", *owners))

    def jiffies(self, seconds: float) -> int:
        """So long from now."""
        return jiffies.now() + round(seconds * jiffies.per_second()) & STAMP

    def table(self, name: str) -> BpfMap:
        return self.program.maps[name]

    def quiet(self, seconds: float) -> None:
        """As if nobody had sent anything for that long."""
        for table in (self.flows, self.returns):
            table.age(round(seconds * jiffies.per_second()))

    def mark(self, flag: str) -> None:
        """As if every flow had been seen to be so."""
        for table in (self.flows, self.returns):
            table.mark(flag)

    def forget_flows(self) -> None:
        for table in (self.flows, self.returns):
            table.clear()

    def hold_every_port(self) -> None:
        """As if living flows held each port towards the node of the only flow there is."""
        (place,) = self.returns.places()
        table, memory = self.returns.map, self.returns.memory
        leaf = table.Leaf.from_buffer_copy(memory, place * table.stride)
        base = place - socket.ntohs(leaf.source_port)
        for port in range(1 << 16):
            leaf.source_port = leaf.client_port = socket.htons(port)
            at = (base + port) % table.max_entries * table.stride
            memory[at : at + table.stride] = bytes(leaf)


def traffic_of(verdict: str, frame: bytes) -> list[tuple[int, ...]]:
    """What a packet with this verdict adds for its service, and the same for its node."""
    if verdict not in (*IN, *OUT):
        return []
    at = next(at for at in (14, 18, 22) if frame[at - 2 : at] in (b"\x08\x00", b"\x86\xdd"))
    version = frame[at] >> 4
    (total,) = struct.unpack_from("!H", frame, at + (2 if version == 4 else 4))
    size = total if version == 4 else total + HEADER[6]
    flags = frame[at + HEADER[version] + 13 :][:1]
    begins = verdict == "opened" or (verdict == "bridged" and bool(flags) and flags[0] & SYN_ACK == SYN)
    return [(1, size, 0, 0, int(begins)) if verdict in IN else (0, 0, 1, size, 0)] * 2
