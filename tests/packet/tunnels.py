"""A node's program without interfaces, and the cast of its tests: tunnels of load balancers, and what is in them."""

import re
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.address import packed
from gale.dataplane.compiler import source
from gale.dataplane.program import load_source
from gale.dataplane.testrun import run_program
from tests.packet.packets import difference

BALANCER, BALANCER6 = "10.0.0.1", "2001:db8::1"
NODE, NODE6 = "10.0.0.11", "2001:db8::11"
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:c::7"
VIP, VIP6 = "192.0.2.80", "2001:db8:5::80"
ANY_SEGMENT = "192.0.2.81"
"""A service that needs no clamp."""
STRANGER, STRANGER6 = "203.0.113.9", "2001:db8:9::9"

SEGMENT, SEGMENT6 = 1440, 1400
XDP_DROP, XDP_PASS = 1, 2
TC_NEXT = (1 << 32) - 1
"""TC_ACT_UNSPEC: other programs go on."""

NAMES = [name.lower() for name in re.findall(r"    VERDICT\((\w+), ", (BPF_DIRECTORY / "decap.c").read_text())]
"""Of the verdicts."""

ETHER = Ether(src="02:00:00:00:02:01", dst="02:00:00:00:02:11")
TUNNELS = {4: IP(src=BALANCER, dst=NODE, ttl=64, flags="DF", id=0), 6: IPv6(src=BALANCER6, dst=NODE6, hlim=64)}
INSIDE = {
    4: IP(src=CLIENT, dst=VIP, ttl=63, id=7) / TCP(sport=40000, dport=80, flags="PA") / b"GET /",
    6: IPv6(src=CLIENT6, dst=VIP6, hlim=63, fl=5) / UDP(sport=40000, dport=53) / b"question",
}
TAGS = {
    "untagged": ETHER,
    "one VLAN": ETHER / Dot1Q(vlan=7, prio=3),
    "two VLANs": ETHER / Dot1AD(vlan=8) / Dot1Q(vlan=7),
}


class Node:
    """The two programs, and maps as gale-node would fill them."""

    def __init__(self) -> None:
        self.program = load_source(source("decap.c"), [], {"gale_decap": "xdp", "gale_clamp": "tc"})
        for address in (BALANCER, BALANCER6):
            self.program.maps["load_balancers"].update(packed(address), 1)
        for address in (NODE, NODE6):
            self.program.maps["own_addresses"].update(packed(address), 1)
        for address, segment in ((VIP, SEGMENT), (VIP6, SEGMENT6), (ANY_SEGMENT, 0)):
            self.program.maps["segments"].update(packed(address), segment)

    def decap(self, frame: bytes) -> tuple[str, int, bytes]:
        """The verdict, or "" where nothing counts; what the kernel is told; the frame."""
        return self._run("gale_decap", frame)

    def clamp(self, frame: bytes) -> tuple[str, int, bytes]:
        return self._run("gale_clamp", frame)

    def _run(self, name: str, frame: bytes) -> tuple[str, int, bytes]:
        before = self.counters()
        run = run_program(self.program.fds[name], frame)
        moved = [verdict for verdict, old, new in zip(NAMES, before, self.counters(), strict=True) if new != old]
        assert len(moved) <= 1
        return "".join(moved), run.returned, run.packet

    def counters(self) -> list[int]:
        return [total for (total,) in self.program.maps["decap_verdicts"].totals().values()]


def tunnelled(outer: int, inner: int, start: Packet = ETHER, **fields: Any) -> Packet:
    """`fields` of the outer header."""
    header = TUNNELS[outer].copy()
    for name, value in fields.items():
        header.setfieldval(name, value)
    return start / header / INSIDE[inner]


def raw(packet: Packet, at: int, value: bytes) -> bytes:
    """With bytes of the frame replaced."""
    frame = bytes(packet)
    return frame[:at] + value + frame[at + len(value) :]


def same(got: bytes, expected: Packet | bytes) -> None:
    assert not (text := difference(got, bytes(expected))), text
