"""A load balancer with services of every mode, and frames to and from it, mostly of l2 and l3: nodes answer directly.

Each service listens on both IP versions, TCP and UDP, on a port of its own: WAYS, L4. Each node is special in one
thing.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from gale.dataplane.abi import Action, verdicts
from gale.dataplane.address import packed
from gale.dataplane.explain import explainers
from gale.dataplane.hop import NO_HOP, PUBLIC_LINK, Hop
from gale.dataplane.moves import Table
from gale.dataplane.program import Program, load
from gale.dataplane.settings import MODES, PROTOCOLS, DataplaneSettings, Listener
from gale.dataplane.testrun import run_program
from tests.packet.packets import CLIENT, PRIVATE_MAC, PUBLIC_MAC, ROUTER_MAC, SOURCE, SPORT, VIP, difference

CLIENT6, VIP6, SOURCE6 = "2001:db8:c::7", "2001:db8:5::80", "2001:db8:1::1"
PRIVATE_LINK, EMPTY_LINK = 2, 3
SLOTS = 64
MTU, NARROW = 1500, 1400


@dataclass(frozen=True)
class Way:
    """`outer`: IP version of the tunnel, None in l2. `dport`: of the service that asks for it."""

    name: str
    dport: int
    outer: int | None

    @property
    def mode(self) -> str:
        return "l3" if self.outer else self.name

    @property
    def verdict(self) -> str:
        return "tunnelled" if self.outer else "bridged"

    @property
    def overhead(self) -> int:
        return {None: 0, 4: 20, 6: 40}[self.outer]


L2, L3_4, L3_6 = Way("l2", 8002, None), Way("l3 in IPv4", 8004, 4), Way("l3 in IPv6", 8006, 6)
WAYS = (L2, L3_4, L3_6)
L4, TARGET_PORT = Way("l4", 8001, None), 9001
VERSIONS = (4, 6)

SETTINGS = DataplaneSettings(
    public_interface="lo",
    private_interface="lo",
    source_address=SOURCE,
    source_address6=SOURCE6,
    listeners=tuple(
        Listener(way.name, address, way.dport, protocol, TARGET_PORT, way.mode, way.outer or 4)
        for way in (*WAYS, L4)
        for address in (VIP, VIP6)
        for protocol in PROTOCOLS
    ),
    slots=SLOTS,
    flows=1 << 10,
)


@dataclass(frozen=True)
class Node:
    """As the map of nodes holds it. `mac`: of its next hop, by either IP version."""

    number: int
    address: str
    address6: str
    mac: str
    hop4: Hop
    hop6: Hop


def a_node(number: int, vlan: int = 0, **hop: Any) -> Node:
    mac = f"02:00:00:00:02:{number:02x}"
    macs = bytes.fromhex((mac + PRIVATE_MAC).replace(":", ""))
    hop4 = Hop(**{"macs": macs, "link": PRIVATE_LINK, "vlan": vlan, "mtu": MTU, "on_link": True, **hop})
    return Node(number, f"10.0.0.{number}", f"2001:db8:1::{number}", mac, hop4, hop4)


NODE, OTHER = a_node(11), a_node(12)
TAGGED = a_node(13, vlan=9)
BEHIND_A_ROUTER = a_node(14, on_link=False)
UNKNOWN = replace(a_node(15), hop4=NO_HOP, hop6=NO_HOP)
"""Its next hop's MAC address is not known."""
UNPLUGGED = a_node(16, link=EMPTY_LINK)
"""The interface has gone."""
ONLY_4 = replace(a_node(17), address6="::", hop6=NO_HOP)
ONLY_BY_6 = replace(a_node(18), hop4=NO_HOP)
"""No neighbour is known for its IPv4 address."""
NARROW_WAY = a_node(19, mtu=NARROW)
NODES = (NODE, OTHER, TAGGED, BEHIND_A_ROUTER, UNKNOWN, UNPLUGGED, ONLY_4, ONLY_BY_6, NARROW_WAY)

XDP_ACTIONS = {Action.DROP: 1, Action.PASS: 2, Action.REDIRECT: 4, Action.REPLY: 4}
ACTIONS = {verdict.name: verdict.action for verdict in verdicts()}
NAMES = tuple(ACTIONS)


@dataclass(frozen=True)
class Outcome:
    verdict: str
    packet: bytes

    def must_be(self, verdict: str, packet: Packet | bytes) -> None:
        """The whole frame, with lengths and checksums as scapy computes them."""
        assert self.verdict == verdict
        assert not (text := difference(self.packet, bytes(packet))), text


class Direct:
    """The programs and their maps."""

    def __init__(self, settings: DataplaneSettings = SETTINGS) -> None:
        self.settings = settings
        self.program = load(settings)
        self.maps = self.program.maps
        self._fill_directory()
        for place in (PUBLIC_LINK, PRIVATE_LINK):
            self.maps["links"].update(place, socket.if_nametoindex("lo"))
        self.reset()

    def reset(self) -> None:
        """NODE owns every slot; no fragments, no answers given, no flows."""
        for node in NODES:
            self.set_node(node)
        self.set_owner(NODE)
        for name in ("fragments", "answer_rate", "flows", "returns", "strays"):
            self.maps[name].clear()

    def public(self, packet: Packet | bytes) -> Outcome:
        before = self.counters()
        run = run_program(self.program.public_fd, bytes(packet))
        (verdict,) = [name for name, count in self.counters().items() if count != before[name]]
        assert run.returned == XDP_ACTIONS[ACTIONS[verdict]]
        return Outcome(verdict, run.packet)

    def private(self, packet: Packet | bytes) -> None:
        assert self.program.private_fd is not None
        run_program(self.program.private_fd, bytes(packet))

    @cached_property
    def explainers(self) -> Program:
        """Compiled when they are first asked for."""
        return explainers(self.program)

    def counters(self) -> Mapping[str, int]:
        return {name: total for name, (total,) in zip(NAMES, self.maps["verdicts"].totals().values(), strict=True)}

    def set_node(self, node: Node) -> None:
        entry = self.maps["nodes"].Leaf()
        entry.address = _native(packed(node.address)[12:])
        entry.address6.bytes[:] = packed(node.address6)
        for mine, hop in ((entry.hop4, node.hop4), (entry.hop6, node.hop6)):
            mine.macs[:] = hop.macs
            mine.link, mine.vlan, mine.mtu, mine.on_link = hop.link, socket.htons(hop.vlan), hop.mtu, hop.on_link
        self.maps["nodes"][node.number] = entry

    def clear_node(self, node: Node) -> None:
        self.maps["nodes"].update(node.number, self.maps["nodes"].Leaf())

    def set_owner(self, node: Node | None) -> None:
        """Of every slot of every service."""
        self.set_owners([node.number if node else 0] * SLOTS)

    def set_owners(self, numbers: list[int]) -> None:
        for service in range(len(self.settings.services)):
            self.maps["slot_tables"].update(2 * service, Table.of(struct.pack(f"={SLOTS}H", *numbers)).as_bytes())
            self.maps["active"].update(service, 2 * service)

    def traffic(self, way: Way) -> dict[str, int]:
        """Of a service: what is not zero."""
        return self._traffic("service_traffic", self.settings.services.index(way.name))

    def node_traffic(self, node: Node) -> dict[str, int]:
        return self._traffic("node_traffic", node.number)

    def _traffic(self, name: str, number: int) -> dict[str, int]:
        table = self.maps[name]
        fields = [field for field, *_ in table.Leaf._fields_]
        totals = dict(zip(fields, table.totals([number])[number], strict=True))
        return {field: total for field, total in totals.items() if total}

    def _fill_directory(self) -> None:
        directory = self.maps["directory"].Leaf()
        first = memoryview(directory).cast("B")[: 2 << 16].cast("H")
        for number, listener in enumerate(self.settings.listeners, start=1):
            entry = directory.listeners[number]
            entry.address.bytes[:] = packed(listener.address)
            entry.port = port = socket.htons(listener.port)
            entry.target_port = socket.htons(listener.target_port)
            entry.service = self.settings.services.index(listener.service)
            entry.protocol, entry.mode = PROTOCOLS[listener.protocol], MODES[listener.mode]
            entry.tunnel = listener.tunnel
            entry.next, first[port] = first[port], number
        first.release()
        self.maps["directory"].update(0, directory)


def _native(packet_order: bytes) -> int:
    return int(struct.unpack("=I", packet_order)[0])


def ip(version: int, **fields: Any) -> Packet:
    """From the client to the service's address; `ttl` is the hop limit, too."""
    if version == 4:
        return IP(**{"src": CLIENT, "dst": VIP, "id": 7, **fields})
    if "ttl" in fields:
        fields["hlim"] = fields.pop("ttl")
    return IPv6(**{"src": CLIENT6, "dst": VIP6, "fl": 5, **fields})


def tcp(way: Way, flags: str = "A", **fields: Any) -> Packet:
    return TCP(**{"sport": SPORT, "dport": way.dport, "flags": flags, **fields})


def udp(way: Way, **fields: Any) -> Packet:
    return UDP(**{"sport": SPORT, "dport": way.dport, **fields})


def from_client(packet: Packet, *tags: Packet) -> Packet:
    """As it arrives on the public side."""
    frame = Ether(src=ROUTER_MAC, dst=PUBLIC_MAC)
    for tag in tags:
        frame = frame / tag
    return frame / packet


def to_node(way: Way, packet: Packet, node: Node = NODE, outer: int | None = None) -> Packet:
    """As `packet`, sent by the client, leaves on the private side. `outer`: not the version that the way asks for."""
    outer = outer or way.outer
    hop = node.hop6 if outer == 6 or not node.hop4.link else node.hop4
    frame = Ether(src=PRIVATE_MAC, dst=node.mac)
    if hop.vlan:
        frame = frame / Dot1Q(vlan=hop.vlan)
    if not outer:
        return frame / packet
    traffic_class = packet.tos if IP in packet and packet.version == 4 else packet.tc
    packet = one_hop_less(packet)
    if outer == 4:
        return frame / IP(src=SOURCE, dst=node.address, id=0, flags="DF", ttl=64, tos=traffic_class) / packet
    return frame / IPv6(src=SOURCE6, dst=node.address6, hlim=64, tc=traffic_class) / packet


def one_hop_less(packet: Packet) -> Packet:
    """Parsed anew: fields that scapy worked out stay, the checksum alone is worked out again."""
    packet = type(packet)(bytes(packet))
    if packet.version == 4:
        packet.ttl, packet.chksum = packet.ttl - 1, None
    else:
        packet.hlim -= 1
    return packet


def with_options(version: int) -> Packet:
    """An IP header with something behind it, before the ports."""
    if version == 4:
        return ip(4, options=b"\x01\x01\x01\x00")
    return ip(6) / IPv6ExtHdrDestOpt()


def fragments(version: int, transport: Packet, cut: int = 32) -> tuple[Packet, Packet]:
    """The first fragment of a packet, with the ports and `cut` bytes, and the last."""
    data = bytes(ip(version) / transport)[20 if version == 4 else 40 :]
    if version == 4:
        protocol = ip(4, flags="MF") / transport
        number = IP(bytes(protocol)).proto
        first, last = ip(4, flags="MF", proto=number), ip(4, frag=cut // 8, proto=number)
    else:
        number = IPv6(bytes(ip(6) / transport)).nh
        first = ip(6) / IPv6ExtHdrFragment(nh=number, m=1, offset=0, id=9)
        last = ip(6) / IPv6ExtHdrFragment(nh=number, m=0, offset=cut // 8, id=9)
    return first / Raw(data[:cut]), last / Raw(data[cut:])


def turned(packet: Packet) -> Packet:
    """The addresses of an IP packet swapped: what is in it came from the other side."""
    packet = packet.copy()
    packet.src, packet.dst = packet.dst, packet.src
    return packet


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """What belongs to a CPU: a test about it must not be moved. Each worker of a test run has its own."""
    allowed = os.sched_getaffinity(0)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(allowed)[worker % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
