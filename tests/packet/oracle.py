"""What the packet path ought to do, written a second time in Python: the oracle of the tests.

It shares no code with bpf/ and works with numbers and bytes where the packet path works with words.
"""

import ipaddress
import struct
from dataclasses import dataclass, field

_MASK = (1 << 64) - 1

SYN, RST, FIN, ACK = 0x02, 0x04, 0x01, 0x10


def _splitmix(x: int) -> int:
    """The finaliser of Steele, Lea and Flood's SplitMix64."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def slot(client: str, client_port: int, address: str, port: int, slots: int, protocol: int = 6) -> int:
    """The slot of a flow, the same on every load balancer and machine."""
    addresses = int(ipaddress.ip_address(client)) << 32 | int(ipaddress.ip_address(address))
    ports = protocol << 32 | client_port << 16 | port
    return _splitmix(_splitmix(0x9E3779B97F4A7C15 ^ addresses) ^ ports) % slots


def ones_complement_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(frozen=True)
class Segment:
    """An IPv4 packet with TCP in it, as far as the packet path looks."""

    client: str
    address: str
    client_port: int
    port: int
    flags: int
    ttl: int
    more_fragments: bool


@dataclass
class Oracle:
    """The public side of one load balancer. `listeners`: the addresses and ports of services."""

    listeners: frozenset[tuple[str, int]]
    flows: set[tuple[str, int, str, int]] = field(default_factory=set)
    reset: set[tuple[str, int, str, int]] = field(default_factory=set)

    def verdicts(self, frame: bytes) -> set[str]:
        """What may become of the next packet. Nodes are there, reachable and stay; there are more ports than flows.

        More than one thing may where time decides, which the oracle does not measure: whether a flow that was reset
        is over already, and its port another's.
        """
        found = _parse(frame)
        if isinstance(found, str):
            return {found}
        if (found.address, found.port) not in self.listeners:
            return {"no_service"}
        if found.more_fragments:
            return {"fragment"}
        if found.ttl <= 1:
            return {"ttl_expired"}
        flow = found.client, found.client_port, found.address, found.port
        opens = found.flags & (SYN | ACK | FIN | RST) == SYN
        if flow in self.flows:
            if found.flags & RST:
                self.reset.add(flow)
            over = {"opened" if opens else "no_flow"} if flow in self.reset else set()
            return {"forwarded"} | over
        if opens:
            self.flows.add(flow)
            return {"opened"}
        return {"no_flow"}

    def verdict_of_answer(self, frame: bytes, awaited: set[tuple[str, int, str, int]]) -> str:
        """On the private side; `awaited`: node, its port, the load balancer's address and the source port."""
        found = _parse(frame)
        if isinstance(found, str) or (found.client, found.client_port, found.address, found.port) not in awaited:
            return "not_a_reply"
        if found.more_fragments:
            return "fragment"
        return "ttl_expired" if found.ttl <= 1 else "returned"


def _parse(frame: bytes) -> Segment | str:
    """The segment, or the verdict for want of one."""
    if len(frame) < 14:
        return "malformed"
    if frame[12:14] != b"\x08\x00":
        return "not_ipv4"
    ip = frame[14:]
    if len(ip) < 20 or ip[0] >> 4 != 4 or ip[0] & 15 < 5:
        return "malformed"
    header, total, fragment = (ip[0] & 15) * 4, *struct.unpack("!H2xH", ip[2:8])
    if not header <= total <= len(ip):
        return "malformed"
    if ip[9] != 6:
        return "not_tcp"
    if fragment & 0x1FFF:
        return "later_fragment"
    tcp = ip[header:total]
    if len(tcp) < 20:
        return "malformed"
    source, destination = (str(ipaddress.ip_address(ip[start : start + 4])) for start in (12, 16))
    source_port, port = struct.unpack("!HH", tcp[:4])
    return Segment(source, destination, source_port, port, tcp[13], ip[8], bool(fragment & 0x2000))
