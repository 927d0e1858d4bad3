"""A seeded network between simulated machines: gale.raft.streams.Streams without a kernel.

A connection is two ends; each direction keeps its order and has its own latency. What can happen to a link from one
address to another, in one direction or both:

    blocked  nothing passes and nobody is told: what was sent waits, as TCP would send it again, and leaves when the
             block ends. A dial gets no answer.
    slow     so much is added to its latency
    lossy    of so many in a hundred packets nothing arrives. A datagram is gone; a stream stands still, longer each
             time that what was lost is lost again, as TCP does when it has nothing else to go by
    flapped  connections over it are reset at both ends

A process that is killed resets its connections; a machine that loses power says nothing, and when it is up again
answers what still arrives for the old connections with a reset.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from gale.raft.streams import Stream
from tests.sim.loop import VirtualLoop, World

RESET = b""
RESEND_S = 0.2
RESENDS_MAX = 6
CONNECT_S = 0.5

Accepted = Callable[[Stream], Coroutine[Any, Any, None]]


class End:
    """One end of a connection: a gale.raft.streams.Stream."""

    def __init__(self, network: "Network", host: "Host", source: str) -> None:
        self.source = source
        self.identity: str | None = source if network.identified else None
        self.unsent = 0
        self.host = host
        self.ended = False
        self.peer: End
        self.held: deque[bytes] = deque()
        self._network = network
        self._buffer = bytearray()
        self._waiting: asyncio.Future[None] | None = None
        self._last_s = 0.0  # arrival of what was sent last: order is kept

    async def read(self, size: int) -> bytes:
        while True:
            if self.ended:
                raise ConnectionResetError("the connection has ended")
            if len(self._buffer) >= size:
                content = bytes(self._buffer[:size])
                del self._buffer[:size]
                return content
            self._waiting = self.host.loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    def write(self, content: bytes) -> None:
        if not self.ended and content:
            self.unsent += len(content)
            self._send(content)

    def abort(self) -> None:
        if not self.ended:
            self.end()
            self.reset()

    def reset(self) -> None:
        """Tell the other end that there is no connection."""
        self._send(RESET)

    def end(self) -> None:
        """It has ended, as this end sees it."""
        self.ended = True
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)

    def flush(self) -> None:
        """The block has ended: what waited is sent again."""
        wait_s = self._network.chance.uniform(0.0, RESEND_S)
        while self.held:
            self._launch(self.held.popleft(), wait_s)

    def _send(self, segment: bytes) -> None:
        if not self.host.up:
            return
        if self.held or self._network.is_blocked(self.host.ip, self.source):
            self.held.append(segment)
        else:
            self._launch(segment, 0.0)

    def _launch(self, segment: bytes, wait_s: float) -> None:
        latency_s = self._network.latency_s(self.host.ip, self.source) + wait_s
        if self._last_s <= self._network.now_s(self.host):  # else it comes along with what stands still
            latency_s += self._network.stands_still_s(self.host.ip, self.source)
        self._last_s = max(self._last_s, self._network.now_s(self.host) + latency_s) + self._network.takes_s(segment)
        if self.peer.host.up:
            self.peer.host.loop.call_at(self._last_s, self._arrive, segment)

    def _arrive(self, segment: bytes) -> None:
        """Runs on the other machine."""
        peer = self.peer
        self.host.reached_ran_s[self.source] = self.host.loop.ran_s
        peer.host.heard_ran_s[self.host.ip] = peer.host.loop.ran_s
        if segment is RESET:
            peer.end()
            return
        self.unsent -= len(segment)
        if peer.ended:
            peer.reset()
            return
        peer._buffer += segment
        if peer._waiting and not peer._waiting.done():
            peer._waiting.set_result(None)


class Host:
    """One life of a machine on the network: its gale.raft.streams.Streams."""

    def __init__(self, network: "Network", address: str, loop: VirtualLoop) -> None:
        self.ip = address.rpartition(":")[0]
        self.address = address
        self.loop = loop
        self.up = self.powered = True
        self.accepted: Accepted | None = None
        self.heard: Callable[[str, bytes], None] = lambda address, datagram: None
        self.ends: list[End] = []
        self.heard_ran_s: dict[str, float] = {}  # peer -> when something from it, to it, last arrived, in this
        self.reached_ran_s: dict[str, float] = {}  # machine's running time
        self._network = network

    async def serve(self, accepted: Callable[[Stream], Awaitable[None]], heard: Callable[[str, bytes], None]) -> None:
        async def accept(stream: Stream) -> None:
            await accepted(stream)

        self.accepted, self.heard = accept, heard

    def send(self, address: str, datagram: bytes) -> None:
        network, ip = self._network, address.rpartition(":")[0]
        other = network.hosts.get(ip)
        if self.up and other and other.up and not network.is_blocked(self.ip, ip) and not network.loses(self.ip, ip):
            at_s = network.now_s(self) + network.latency_s(self.ip, ip)
            other.loop.call_at(at_s, self._arrive, other, datagram)

    def _arrive(self, other: "Host", datagram: bytes) -> None:
        """Runs on the other machine."""
        self.reached_ran_s[other.ip] = self.loop.ran_s
        other.heard_ran_s[self.ip] = other.loop.ran_s
        other.heard(self.address, datagram)

    async def dial(self, address: str) -> Stream:
        network, ip = self._network, address.rpartition(":")[0]
        answered: asyncio.Future[Host] = self.loop.create_future()
        there_s = self.loop.time() + network.latency_s(self.ip, ip)
        back_s = there_s + network.latency_s(ip, self.ip)
        other = network.hosts.get(ip)
        reached = not network.is_blocked(self.ip, ip) and not network.is_blocked(ip, self.ip)
        if other is not None and other.powered and reached:
            still_s = network.stands_still_s(self.ip, ip) + network.stands_still_s(ip, self.ip)
            self.loop.call_at(back_s + still_s, _answer, answered, other)
        async with asyncio.timeout(CONNECT_S):
            found = await answered
        if found.accepted is None:
            raise ConnectionRefusedError(f"{address} refused the connection")
        here, there = End(network, self, ip), End(network, found, self.ip)
        here.peer, there.peer = there, here
        self.ends.append(here)
        found.ends.append(there)
        found.loop.call_soon(_accept, found, there)
        return here

    def close(self) -> None:
        self.accepted = None
        for end in self.ends:
            end.abort()


class Network:
    def __init__(self, world: World, chance: random.Random, latency_max_s: float, bytes_a_second: float) -> None:
        self.chance = chance
        self.identified = False
        self.hosts: dict[str, Host] = {}
        self.slowest_s = 0.0  # of all that was slow so far
        self._world = world
        self._latency_max_s = latency_max_s
        self._bytes_a_second = bytes_a_second
        self._blocks: Counter[tuple[str, str]] = Counter()
        self._slow_s: dict[tuple[str, str], float] = {}
        self._lost: dict[tuple[str, str], float] = {}

    def now_s(self, host: Host) -> float:
        return host.loop.time() if asyncio._get_running_loop() is host.loop else self._world.now_s

    def attach(self, address: str, loop: VirtualLoop) -> Host:
        """A machine starts. Whoever still has a connection to its life before learns that there is none."""
        host = Host(self, address, loop)
        before = self.hosts.get(host.ip)
        self.hosts[host.ip] = host
        for end in before.ends if before else ():
            if not end.peer.ended:
                end.host = host
                host.ends.append(end)
                end.reset()
        return host

    def detach(self, host: Host, silently: bool) -> None:
        """A machine ends, by a power cut (silently) or because its process was killed."""
        if silently:
            host.powered = False
            for end in host.ends:
                end.held.clear()
        else:
            host.close()
        host.up = False
        host.accepted = None
        for end in host.ends:
            end.ended = True

    def latency_s(self, source: str, to: str) -> float:
        return self.chance.uniform(0.000_1, self._latency_max_s) + self._slow_s.get((source, to), 0.0)

    def takes_s(self, segment: bytes) -> float:
        return len(segment) / self._bytes_a_second

    def is_blocked(self, source: str, to: str) -> bool:
        return self._blocks[source, to] > 0

    def block(self, *links: tuple[str, str]) -> None:
        self._blocks.update(links)

    def unblock(self, *links: tuple[str, str]) -> None:
        for link in links:
            self._blocks[link] -= 1
            if not self._blocks[link]:
                for end in self._ends(*link):
                    end.flush()

    def slow(self, link: tuple[str, str], seconds: float) -> None:
        self._slow_s[link] = seconds
        self.slowest_s = max(self.slowest_s, seconds)

    def lose(self, link: tuple[str, str], share: float) -> None:
        """`share`: of its packets, 0 to 1."""
        self._lost[link] = share

    def loses(self, source: str, to: str) -> bool:
        """Whether the next packet is lost."""
        share = self._lost.get((source, to), 0.0)
        return bool(share) and self.chance.random() < share

    def stands_still_s(self, source: str, to: str) -> float:
        """How long it takes until a segment, or its acknowledgement, is lost no more."""
        resends = 0
        while resends < RESENDS_MAX and (self.loses(source, to) or self.loses(to, source)):
            resends += 1
        return float(RESEND_S * (2**resends - 1))

    def flap(self, one: str, other: str) -> None:
        for end in [*self._ends(one, other), *self._ends(other, one)]:
            if end.host.up:
                end.host.loop.call_soon(end.end)

    def heal(self) -> None:
        """Everything passes again, at its usual pace."""
        self._slow_s.clear()
        self._lost.clear()
        self.unblock(*[link for link, count in self._blocks.items() for _ in range(count)])

    def _ends(self, source: str, to: str) -> list[End]:
        """The ends that are open on the machine `source`, of connections to `to`."""
        host = self.hosts.get(source)
        if host is None:
            return []
        host.ends = [end for end in host.ends if not end.ended or end.held]
        return [end for end in host.ends if end.source == to]


def _answer(answered: "asyncio.Future[Host]", host: Host) -> None:
    if not answered.done():
        answered.set_result(host)


def _accept(host: Host, end: End) -> None:
    if host.accepted is None:
        end.abort()
    else:
        host.loop.create_task(host.accepted(end))
