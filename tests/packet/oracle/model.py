"""The packet path of one load balancer, a second time: what must become of a frame, verdict and bytes.

The model is asked after the program, because chance and time decide some things: which port a flow gets, whether a flow
that has ended is gone already, whether an answer to a packet too big is one too many. There the model takes what the
program did, if it is lawful, and goes on with that. Everything else follows from the frame, the World and the flows.

Decisions, where RFCs leave a choice:

- A packet is for the service whose address, port and protocol it names; everything else leaves as it came.
- Fragments follow their first one, which is known by what a receiver puts them together by. ICMP in fragments is left
  alone.
- Without a service at an IPv6 address, IPv6 is nothing that is looked at.
- Nothing is forwarded with its last hop behind it. l2 leaves the time to live alone; l3 and l4 are a hop, and take one.
- A client is answered in the VLANs of its packets.
- A new flow is opened by a lone SYN or any UDP packet that is no later fragment, at the node that owns its slot. One
  that lives keeps its node.
- In l2 and l3 a connection keeps its node as well, when its slot moves, if something is heard of it within a minute of
  that, and as long as the node is there. Datagrams go by the slot, errors with their connection.
"""

from collections import Counter

from tests.packet.oracle import build
from tests.packet.oracle.flows import Flow, Flows, Span
from tests.packet.oracle.moves import GOES_ON, Connection
from tests.packet.oracle.parse import ACK, FIN, FIRST, ICMP, ICMP6, LATER, RST, SYN, TCP, UDP, Packet, parse, quoted
from tests.packet.oracle.slots import flow_hash
from tests.packet.oracle.world import Hop, Listener, Node, World

ENCAPSULATION = {4: 20, 6: 40}
"""Bytes of the outer header."""

ERRORS = ("error_forwarded", "error_forwarded")
"""What errors are called that go to a node, by the verdicts of l2 and l3."""

Result = tuple[str, bytes]
"""A verdict, and the frame as it leaves."""


class Model:
    """`ran`: when the program did; it must not run backwards. `crowded`: there are more flows than places for them."""

    def __init__(self, world: World, crowded: bool = False) -> None:
        self.world = world
        self.flows = Flows(crowded)
        self.fragments: dict[tuple[bytes, bytes, int, int], tuple[int, int]] = {}
        self.verdicts: Counter[str] = Counter()
        self.traffic: dict[str, list[int]] = {}
        """By service's name and by "node 1": packets and bytes from clients, packets and bytes to them, new flows."""
        self._listeners = world.by_destination()
        self._with_ipv6 = any(len(entry.address) == 16 for entry in world.listeners)

    def public(self, frame: bytes, got: Result, ran: Span) -> str:
        """What is wrong with what became of a frame that came from clients; empty: nothing."""
        return self._judge(self._public(frame, got, ran), got)

    def private(self, frame: bytes, got: Result, ran: Span) -> str:
        """The same on the nodes' side."""
        return self._judge(self._private(frame, got, ran), got)

    def _count(self, listener: Listener, node: int, packet: Packet, to_node: bool, opened: bool = False) -> None:
        for name in (listener.service, f"node {node}"):
            counts = self.traffic.setdefault(name, [0] * 5)
            counts[0 if to_node else 2] += 1
            counts[1 if to_node else 3] += packet.length
            counts[4] += opened

    def _judge(self, expected: Result | str, got: Result) -> str:
        if isinstance(expected, str):
            return expected
        self.verdicts[got[0]] += 1
        if expected == got:
            return ""
        if expected[0] != got[0]:
            return f"verdict {got[0]} instead of {expected[0]}"
        return f"{got[0]}, but the frame is\n{got[1].hex()} instead of\n{expected[1].hex()}"

    # From clients

    def _public(self, frame: bytes, got: Result, ran: Span) -> Result | str:
        packet = parse(frame, self._with_ipv6)
        if isinstance(packet, str):
            return packet, frame
        if packet.protocol == ICMP or packet.protocol == ICMP6:
            return self._error_in(frame, packet, got, ran)
        if packet.fragment == LATER:
            ports = self.fragments.get(_fragment_key(packet))
            if ports is None:
                return "later_fragment", frame
            packet.source_port, packet.destination_port = ports
        listener = self._listeners.get((packet.destination, packet.destination_port, packet.protocol))
        if listener is None:
            return "no_service", frame
        if packet.fragment == FIRST:
            self.fragments[_fragment_key(packet)] = packet.source_port, packet.destination_port
        if listener.mode == "l4":
            return self._translate_in(frame, packet, listener, got, ran)
        return self._direct(frame, packet, listener, packet.source, packet.source_port, got, ("bridged", "tunnelled"))

    def _direct(
        self,
        frame: bytes,
        packet: Packet,
        listener: Listener,
        client: bytes,
        client_port: int,
        got: Result,
        names: tuple[str, str],
    ) -> Result | str:
        """l2 and l3: by the slot, and where that has moved, by what is known of the connection."""
        if packet.ttl <= 1:
            return "ttl_expired", frame
        owner = self._owner(listener, client, client_port)
        number = self._home(packet, listener, client, client_port) or owner
        if number != owner and names != ERRORS:
            names = ("stayed", "stayed")
        node = self.world.nodes.get(number)
        if node is None:
            return "no_node", frame
        begins = packet.flags & (SYN | ACK) == SYN
        if listener.mode == "l2":
            hop = node.hop4 if node.hop4.macs else node.hop6
            if not hop.macs:
                return "no_neighbour", frame
            if not hop.on_link:
                return "not_on_link", frame
            if packet.length > hop.mtu:
                return self._too_big(frame, packet, hop.mtu, got)
            self._count(listener, number, packet, True, begins)
            return names[0], build.bridged(frame, packet, hop)
        version, source, destination, hop = self._tunnel(node, listener.tunnel)
        if not version:
            return "no_address6", frame
        if not hop.macs:
            return "no_neighbour", frame
        if packet.length + ENCAPSULATION[version] > hop.mtu:
            return self._too_big(frame, packet, hop.mtu - ENCAPSULATION[version], got)
        self._count(listener, number, packet, True, begins)
        return names[1], build.tunnelled(frame, packet, hop, version, source, destination)

    def _tunnel(self, node: Node, wanted: int) -> tuple[int, bytes, bytes, Hop]:
        """The version of the outer header, its addresses and the hop; version 0: there is no way."""
        ways = {
            4: (4, self.world.source, node.address, node.hop4),
            6: (6, self.world.source6, node.address6, node.hop6),
        }
        for version in (wanted, 10 - wanted):
            _, source, destination, _ = way = ways[version]
            if source and destination:
                return way
        return 0, b"", b"", node.hop4

    def _slot(self, listener: Listener, client: bytes, client_port: int) -> int:
        number = flow_hash(client, client_port, listener.address, listener.port, listener.protocol)
        return number % len(self.world.slots[listener.service])

    def _owner(self, listener: Listener, client: bytes, client_port: int) -> int:
        return self.world.slots[listener.service][self._slot(listener, client, client_port)]

    def _home(self, packet: Packet, listener: Listener, client: bytes, client_port: int) -> int:
        """Whose the packet is, whoever owns its slot; 0: the owner's."""
        world, moves, key = self.world, self.world.moves, (client, client_port, listener.address, listener.port)
        slot = self._slot(listener, client, client_port)
        if listener.protocol != TCP or (listener.service, slot) not in moves.first:
            return 0
        tells = packet.protocol == TCP and packet.fragment != LATER
        first, owner = (
            moves.unknown_belongs_to(listener.service, slot),
            world.born(self._owner(listener, client, client_port)),
        )
        known = moves.connections.get(key)
        if tells and packet.flags & (SYN | ACK | FIN | RST) == SYN:
            if owner and (known or first):
                known = moves.connections.setdefault(key, Connection())
                known.opening = (packet.sequence + 1) % (1 << 32), owner
            return 0
        ends = bool(packet.flags & RST)
        if known and known.opening and tells and (packet.sequence - known.opening[0]) % (1 << 32) < GOES_ON:
            home = known.opening[1]
            if not ends and self._is_there(home):
                moves.connections[key] = Connection(home)
        elif known and known.home:
            home = known.home
        elif born := world.born(first):
            home = born
            if tells and not ends:
                moves.connections.setdefault(key, Connection()).home = home
        else:
            return 0
        return home[0] if self._is_there(home) else 0

    def _is_there(self, home: tuple[int, int]) -> bool:
        return self.world.born(home[0]) == home

    def _too_big(self, frame: bytes, packet: Packet, mtu: int, got: Result) -> Result | str:
        """How many answers a second are sent is a matter of time; errors and later fragments never have one."""
        if got[0] == "too_big" and packet.fragment != LATER and packet.protocol in (TCP, UDP):
            return build.answer_complaint(frame, packet, got[1], mtu) or got
        return "too_big_quiet", frame

    def _translate_in(self, frame: bytes, packet: Packet, listener: Listener, got: Result, ran: Span) -> Result | str:
        if packet.ttl <= 1:
            return "ttl_expired", frame
        opens = packet.protocol == UDP or packet.flags & (SYN | ACK | FIN | RST) == SYN
        opens = opens and packet.fragment != LATER
        flow = self.flows.by_key.get((packet.source, packet.source_port, listener))
        if flow and (back := _way_back(frame, packet)) not in flow.returns_by:
            flow.returns_by.append(back)
        if flow is None or (self.flows.may_be_over(flow, ran) and got[0] != "forwarded"):
            begun = self._open(frame, packet, listener, got, ran) if opens else ("no_flow", frame)
            if flow is None or begun[0] == got[0]:
                return begun
        node = self.world.nodes.get(flow.node)
        if node is None or node.birth != flow.birth:
            return self._open(frame, packet, listener, got, ran) if opens else ("node_gone", frame)
        hop, source, destination = self._way(node, packet.version)
        if not hop.macs:
            return "no_neighbour", frame
        if packet.length > hop.mtu:
            return self._too_big(frame, packet, hop.mtu, got)
        flow.saw(packet.flags, True, ran)
        self._count(listener, flow.node, packet, True)
        return "forwarded", build.translated(
            frame, packet, hop.macs, hop.tags, source, destination, flow.source_port, listener.target_port
        )

    def _way(self, node: Node, version: int) -> tuple[Hop, bytes, bytes]:
        """Towards a node: its hop, and the addresses the node sees."""
        if version == 4:
            return node.hop4, self.world.source, node.address
        return node.hop6, self.world.source6, node.address6

    def _open(self, frame: bytes, packet: Packet, listener: Listener, got: Result, ran: Span) -> Result | str:
        number = self._owner(listener, packet.source, packet.source_port)
        node = self.world.nodes.get(number)
        if node is None:
            return "no_node", frame
        hop, source, destination = self._way(node, packet.version)
        if not destination or not source:
            return "no_address6", frame
        if not hop.macs:
            return "no_neighbour", frame
        if packet.length > hop.mtu:
            return self._too_big(frame, packet, hop.mtu, got)
        if got[0] in ("no_port", "no_room") and self.flows.crowded:
            return got[0], frame
        if got[0] != "opened":
            return "opened", b""
        at = 14 + len(hop.tags) + packet.transport - packet.at
        port = int.from_bytes(got[1][at : at + 2], "big")
        flow = Flow(packet.source, packet.source_port, listener, number, node.birth, destination, port)
        flow.returns_by.append(_way_back(frame, packet))
        if complaint := self.flows.open(flow, ran):
            return complaint
        self._count(listener, number, packet, True, True)
        return "opened", build.translated(
            frame, packet, hop.macs, hop.tags, source, destination, port, listener.target_port
        )

    def _error_in(self, frame: bytes, packet: Packet, got: Result, ran: Span) -> Result | str:
        """Somebody on the way to a client, or the client, could not deliver what a service sent."""
        if not packet.error or packet.fragment:
            return "other_protocol", frame
        inner = quoted(frame, packet)
        if inner is None or inner.source != packet.destination:
            return "unrelated_error", frame
        listener = self._listeners.get((inner.source, inner.source_port, inner.protocol))
        if listener is None:
            return "unrelated_error", frame
        if packet.ttl <= 1:
            return "ttl_expired", frame
        if listener.mode != "l4":
            client = inner.destination, inner.destination_port
            return self._direct(frame, packet, listener, *client, got, ERRORS)
        flow = self.flows.by_key.get((inner.destination, inner.destination_port, listener))
        if flow and (back := _way_back(frame, packet)) not in flow.returns_by:
            flow.returns_by.append(back)
        if flow is None or (self.flows.may_be_over(flow, ran) and got[0] == "unrelated_error"):
            return "unrelated_error", frame
        node = self.world.nodes.get(flow.node)
        if node is None or node.birth != flow.birth:
            return "node_gone", frame
        hop, source, destination = self._way(node, packet.version)
        if not hop.macs:
            return "no_neighbour", frame
        self._count(listener, flow.node, packet, True)
        return "error_forwarded", build.error_translated(
            frame,
            packet,
            inner,
            hop.macs,
            hop.tags,
            (source, destination),
            (destination, source),
            (listener.target_port, flow.source_port),
        )

    # From nodes

    def _private(self, frame: bytes, got: Result, ran: Span) -> Result | str:
        packet = parse(frame, self._with_ipv6)
        if isinstance(packet, str):
            return "not_a_reply", frame
        if packet.destination != (self.world.source if packet.version == 4 else self.world.source6):
            return "not_a_reply", frame
        if packet.protocol == ICMP or packet.protocol == ICMP6:
            return self._error_back(frame, packet, got, ran)
        if packet.fragment == LATER:
            ports = self.fragments.get(_fragment_key(packet))
            if ports is None:
                return "not_a_reply", frame
            packet.source_port, packet.destination_port = ports
        view = packet.source, packet.source_port, packet.protocol, packet.destination_port
        flow, may_be_gone = self.flows.answered(view, ran)
        if flow is None or (may_be_gone and got[0] == "not_a_reply"):
            return "not_a_reply", frame
        if packet.ttl <= 1:
            return "ttl_expired", frame
        if packet.fragment == FIRST:
            self.fragments[_fragment_key(packet)] = packet.source_port, packet.destination_port
        flow.saw(packet.flags, False, ran)
        listener = flow.listener
        self._count(listener, flow.node, packet, False)
        results = [
            build.translated(frame, packet, macs, tags, listener.address, flow.client, listener.port, flow.client_port)
            for macs, tags in flow.returns_by
        ]
        return "returned", _nearest(results, flow, got)

    def _error_back(self, frame: bytes, packet: Packet, got: Result, ran: Span) -> Result | str:
        """A node, or somebody on the way to it, could not deliver what a client sent."""
        inner = quoted(frame, packet) if packet.error and not packet.fragment else None
        if inner is None or inner.source != packet.destination:
            return "not_a_reply", frame
        view = inner.destination, inner.destination_port, inner.protocol, inner.source_port
        flow, may_be_gone = self.flows.answered(view, ran)
        if flow is None or (may_be_gone and got[0] == "not_a_reply"):
            return "not_a_reply", frame
        if packet.ttl <= 1:
            return "ttl_expired", frame
        listener = flow.listener
        self._count(listener, flow.node, packet, False)
        results = [
            build.error_translated(
                frame,
                packet,
                inner,
                macs,
                tags,
                (listener.address, flow.client),
                (flow.client, listener.address),
                (flow.client_port, listener.port),
            )
            for macs, tags in flow.returns_by
        ]
        return "error_returned", _nearest(results, flow, got)


def _way_back(frame: bytes, packet: Packet) -> tuple[bytes, bytes]:
    """MACs and tags of frames to the client. The inner one of two tags is a customer's (IEEE 802.1ad)."""
    tags = packet.tags
    return frame[6:12] + frame[:6], tags if len(tags) < 8 else tags[:4] + b"\x81\x00" + tags[6:]


def _fragment_key(packet: Packet) -> tuple[bytes, bytes, int, int]:
    return packet.source, packet.destination, packet.identity, packet.protocol if packet.version == 4 else 0


def _nearest(results: list[bytes], flow: Flow, got: Result) -> bytes:
    """Which of a client's next hops answers take when it has had several is a matter of time. A test run does not show
    the outermost tag a TC program gives a frame: the kernel keeps that beside it.
    """
    for result, (_, tags) in zip(results, flow.returns_by, strict=True):
        if got[1] == result or (tags and got[1] == result[:12] + result[16:]):
            return got[1]
    return results[0]
