"""An endless conversation of clients and nodes, by seed: what the frames of an epoch are made of.

Some clients talk to services of every mode, in the orders that people and attackers talk in; nodes answer the flows
that the model knows. Most frames are then mutated.
"""

from random import Random

from tests.packet.fuzz import frames
from tests.packet.fuzz.cast import LISTENERS, NOWHERE, ROUTER_MACS
from tests.packet.fuzz.frames import End, ethernet, extension, fragments, icmp, ip, pseudo, tcp, udp
from tests.packet.fuzz.mutate import mutated
from tests.packet.oracle import Listener, Model
from tests.packet.oracle.checksum import full
from tests.packet.oracle.flows import Flow
from tests.packet.oracle.parse import (
    ACK,
    DESTINATION_OPTIONS,
    FIN,
    HOP_BY_HOP,
    ICMP,
    ICMP6,
    ROUTING,
    RST,
    SYN,
    TCP,
    UDP,
)

DIALOGUES = 12
EVENTS = 0.994
"""Chance of a frame; else something happens to the world."""
PUSH = 0x08
_TAGS = (b"", b"", b"", b"\x81\x00\x00\x05", b"\x88\xa8\x00\x05\x81\x00\x00\x06")
_ERRORS = {4: ((3, 1, 0), (3, 3, 0), (3, 4, 1300), (11, 0, 0), (12, 0, 0)), 16: ((1, 4, 0), (2, 0, 1280), (3, 0, 0))}
"""Type, code and the word behind, by the length of addresses."""

PUBLIC, PRIVATE, EVENT = "public", "private", "event"
Sent = tuple[str, bytes]
"""From which side, and the frame; or the seed of an event."""


class Traffic:
    def __init__(self, rng: Random, model: Model) -> None:
        self._rng = rng
        self._model = model
        self._waiting: list[Sent] = []
        """Later fragments, which come when others have been heard."""
        self._answers: dict[int, list[bytes]] = {}
        listeners = model.world.listeners
        self._served = [*listeners, *(entry for entry in listeners if entry.mode == "l4" for _ in range(2))]
        self._dialogues = [self._dialogue() for _ in range(DIALOGUES)]

    def next(self) -> Sent:
        rng = self._rng
        chance = rng.random()
        if chance > EVENTS:
            return EVENT, rng.randbytes(4)
        if self._waiting and chance < 0.1:
            sent = self._waiting.pop(int(rng.random() * len(self._waiting)))
        elif chance < 0.4 and self._model.flows.by_view:
            sent = PRIVATE, self._answer()
        else:
            frames_of = self._dialogues[int(rng.random() * DIALOGUES)]
            sent = PUBLIC, frames_of[int(rng.random() * len(frames_of))]
            if rng.random() < 0.02:
                self._split(sent)
            if rng.random() < 0.01 and self._model.flows.by_key:
                return PUBLIC, self._whose_sum_is_zero(rng.choice(list(self._model.flows.by_key.values())))
        if rng.random() < 0.55:
            side = sent[0] if rng.random() < 0.98 else PRIVATE if sent[0] == PUBLIC else PUBLIC
            return side, mutated(rng, sent[1])
        return sent

    def _split(self, sent: Sent) -> None:
        """Its packet once more, in two fragments."""
        side, frame = sent
        at = frame.find(b"\x08\x00\x45") if b"\x08\x00\x45" in frame[12:24] else -1
        if at < 12:
            return
        packet = frame[at + 2 :]
        source, destination, protocol, payload = packet[12:16], packet[16:20], packet[9], packet[20:]
        if len(payload) > 40:
            identity = int(self._rng.random() * 0xFFFF)
            self._wait(side, frame[:12], frame[12:at], fragments(source, destination, protocol, payload, identity, 32))

    def _wait(self, side: str, macs: bytes, tags: bytes, packets: tuple[bytes, ...]) -> None:
        self._waiting += [(side, ethernet(macs, packet, tags)) for packet in packets]
        del self._waiting[:-8]

    def _dialogue(self) -> list[bytes]:
        """What one client may send to one service."""
        rng = self._rng
        listener = rng.choice(self._served if rng.random() < 0.9 else LISTENERS)
        size = len(listener.address)
        client = rng.randbytes(size) if rng.random() < 0.8 else bytes(size - 1) + b"\x07"
        here = client, rng.choice((40000, 40001, 1, 65535, rng.randrange(1, 65536)))
        there = listener.address, listener.port
        tags = rng.choice(_TAGS)
        self._split_ahead(here, there, listener, tags)
        packets = self._tcp(here, there) if listener.protocol == TCP else self._udp(here, there)
        packets += self._errors(here, there, listener)
        packets.append(ip(client, there[0], ICMP if size == 4 else ICMP6, icmp(*_pair(here, there), 8, 0, 1, b"ping")))
        return [ethernet(ROUTER_MACS, packet, tags) for packet in packets]

    def _tcp(self, here: End, there: End) -> list[bytes]:
        segments = [
            tcp(here, there, SYN, sequence=0),
            tcp(here, there, SYN, sequence=self._rng.choice((0, 1 << 20, 0xFFFFFFFF))),
            tcp(here, there, ACK),
            tcp(here, there, ACK, sequence=self._rng.choice((1, 16384, 16385, (1 << 20) + 1))),
            tcp(here, there, ACK | PUSH, b"GET / HTTP/1.1\r\n\r\n"),
            tcp(here, there, ACK | PUSH, bytes(range(33))),
            tcp(here, there, ACK | PUSH, self._rng.randbytes(self._rng.choice((560, 580, 1240, 1460)))),
            tcp(here, there, FIN | ACK),
            tcp(here, there, RST),
        ]
        if self._rng.random() < 0.7:
            del segments[6:]
        return self._packets(here, there, TCP, segments)

    def _udp(self, here: End, there: End) -> list[bytes]:
        datagrams = [
            udp(here, there, b"question"),
            udp(here, there, b"odd"),
            udp(here, there, b"unsummed", checksum=False),
            udp(here, there),
            udp(here, there, self._rng.randbytes(self._rng.choice((560, 580, 1240, 1472)))),
        ]
        return self._packets(here, there, UDP, datagrams)

    def _packets(self, here: End, there: End, protocol: int, payloads: list[bytes]) -> list[bytes]:
        """Each once plainly; some once more with what IP may carry beside."""
        addresses = _pair(here, there)
        packets = [ip(*addresses, protocol, payload) for payload in payloads]
        extra = self._rng.choice(payloads[:4])
        traffic_class = self._rng.randrange(256)
        if len(here[0]) == 4:
            options = b"\1" * 4 * self._rng.randrange(1, 11)
            packets.append(ip(*addresses, protocol, extra, options=options, traffic_class=traffic_class))
        else:
            kinds = (HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, 44)
            chain = [
                extension(self._rng.choice(kinds), self._rng.randrange(3), int(self._rng.random() < 0.1))
                for _ in range(self._rng.randrange(1, 9))
            ]
            packets.append(ip(*addresses, protocol, extra, extensions=chain, traffic_class=traffic_class))
        return packets

    def _split_ahead(self, here: End, there: End, listener: Listener, tags: bytes) -> None:
        """A datagram or segment in fragments, in either order."""
        rng = self._rng
        if rng.random() < 0.5:
            return
        payload = rng.randbytes(100)
        whole = tcp(here, there, ACK, payload) if listener.protocol == TCP else udp(here, there, payload)
        identity = int(rng.random() * 0xFFFF)
        pair = fragments(*_pair(here, there), listener.protocol, whole, identity, 8 * rng.randrange(1, 12))
        self._wait(PUBLIC, ROUTER_MACS, tags, pair + pair[1:])

    def _errors(self, here: End, there: End, listener: Listener) -> list[bytes]:
        """About what the service sent to the client, from somewhere on the way."""
        rng = self._rng
        answer = tcp(there, here, ACK, b"200 OK") if listener.protocol == TCP else udp(there, here, b"answer")
        sent = ip(there[0], here[0], listener.protocol, answer, ttl=rng.choice((1, 60)))
        quote = sent[: rng.choice((len(sent), len(sent) - len(answer) + 8, len(sent) - 1))]
        router = here[0] if rng.random() < 0.5 else rng.randbytes(len(here[0]))
        return [error(rng, router, there[0], quote)]

    def _answer(self) -> bytes:
        """Of a flow's node, or of a router between."""
        rng = self._rng
        flow = rng.choice(list(self._model.flows.by_view.values()))
        made = self._answers.get(id(flow))
        if made is None:
            made = self._answers[id(flow)] = self._answers_of(flow)
        return made[int(rng.random() * len(made))]

    def _whose_sum_is_zero(self, flow: Flow) -> bytes:
        """As the node gets it: zero is written in two ways, and means something else in UDP."""
        world, listener = self._model.world, flow.listener
        source = world.source if len(flow.client) == 4 else world.source6
        seen = (source, flow.source_port), (flow.node_address, listener.target_port)
        here, there = (flow.client, flow.client_port), (listener.address, listener.port)
        if listener.protocol == TCP:
            rest = full(pseudo(source, flow.node_address, TCP, 22) + tcp(*seen, ACK, b"\0\0", checksum=False))
            payload = tcp(here, there, ACK, rest.to_bytes(2, "big"))
        else:
            whole = udp(*seen, b"\0\0", checksum=False)
            rest = full(pseudo(source, flow.node_address, UDP, 10) + whole)
            payload = udp(here, there, rest.to_bytes(2, "big"))
        return ethernet(ROUTER_MACS, ip(*_pair(here, there), listener.protocol, payload))

    def _answers_of(self, flow: Flow) -> list[bytes]:
        rng = self._rng
        world = self._model.world
        node = world.nodes.get(flow.node)
        size = len(flow.client)
        hop = (node.hop4 if size == 4 else node.hop6) if node else NOWHERE
        here = flow.node_address, flow.listener.target_port
        there = (world.source if size == 4 else world.source6), flow.source_port
        protocol = flow.listener.protocol
        payload = rng.randbytes(rng.choice((1, 20, 100)))
        if protocol == TCP:
            payloads = [tcp(here, there, flags, payload) for flags in (SYN | ACK, ACK, ACK | PUSH)]
            if rng.random() < 0.4:
                payloads.append(tcp(here, there, rng.choice((FIN | ACK, RST))))
            asked = tcp(there, here, ACK, b"GET /")
        else:
            payloads = [udp(here, there, payload), udp(here, there, payload, checksum=False)]
            asked = udp(there, here, b"question")
        packets = self._packets(here, there, protocol, payloads)
        sent = ip(there[0], here[0], protocol, asked)
        quote = sent[: rng.choice((len(sent), len(sent) - len(asked) + 8))]
        packets.append(error(rng, rng.choice((here[0], rng.randbytes(size))), there[0], quote))
        pair = fragments(*_pair(here, there), protocol, payloads[0], rng.randrange(0x10000), 24)
        if len(payloads[0]) > 24:
            self._wait(PRIVATE, _back(hop.macs), hop.tags, pair)
        return [ethernet(_back(hop.macs), packet, hop.tags) for packet in packets]


def error(rng: Random, source: bytes, destination: bytes, quote: bytes) -> bytes:
    kind, code, rest = rng.choice(_ERRORS[len(source)])
    message = icmp(source, destination, kind, code, rest, quote)
    return frames.ip(source, destination, ICMP if len(source) == 4 else ICMP6, message)


def _pair(here: End, there: End) -> tuple[bytes, bytes]:
    return here[0], there[0]


def _back(macs: bytes) -> bytes:
    return macs[6:] + macs[:6] if macs else bytes(12)
