"""The wire between load balancers: one connection per pair, frames with a length before them, nothing unpickled.

The load balancer with the greater address dials; both sides say hello in their first frame, and both judge the other's
by the same rule (gale/core/hello.py): who has another configuration, where a single one is enforced, or another list of
load balancers, is ignored before a word of Raft. Bounds come before trust: a frame's length is checked before its body
is read, the first frame must come soon, and a peer that is silent for a second (alive ones ping ten times as often) is
dropped and dialled again. What breaks the form ends the connection and is counted.

Where packets are lost a stream may stand still for longer although its peer is well, which then its datagrams say
(signs.py). So it is kept for five seconds, in which TCP sends again, and another one is dialled beside it.

Between here and the library stand the four rules of rules.py, and the vote before the vote of election.py.
"""

import asyncio
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from gale.core.hello import Hello, judge
from gale.log import Refusals
from gale.raft.disk import DiskError
from gale.raft.rules import Link, Log, Message, incoming_append, outgoing, takes_answer
from gale.raft.signs import KEY_BYTES, Sign, opened, sealed
from gale.raft.streams import Stream, Streams

log = structlog.get_logger()

FRAME_MAX = 4 << 20
HELLO_MAX = 64 << 10
LARGE = 16 << 10
UNSENT_MAX = 32 << 20
RETRY_S = 0.1
IGNORED_RETRY_S = 1.0
LINGER_S = 0.1  # so that a peer which is ignored has read our hello, and knows why
HELLO_S = 1.0
SILENCE_S = 1.0
STUCK_S = 5.0
PING_S = 0.1
ASK_S = 0.05
TERM_JUMP_MAX = 10_000

LENGTH = struct.Struct(">I")


class Codec(Protocol):
    """gale/rpc/raft_codec.py; every decoder raises ValueError for what is out of form."""

    def encode_hello(self, hello: Hello) -> bytes: ...
    def decode_hello(self, frame: bytes) -> Hello: ...
    def encode(self, message: Message) -> bytes: ...
    def decode(self, frame: bytes) -> Message: ...


class Owner(Log, Protocol):
    """The replica, as its transport knows it."""

    @property
    def learner(self) -> bool:
        """It takes the log and does not vote."""
        ...

    @property
    def fresh(self) -> bool:
        """It has no log and never had one."""
        ...

    @property
    def now_s(self) -> float:
        """The library's clock."""
        ...

    def barrier(self) -> None:
        """Return once everything that a message may promise is on disk. Raises DiskError."""
        ...

    def take_append(self, node: Node, message: Message, deliver: Callable[[Node, Message], None]) -> None:
        """Deliver an append, and note that its sender leads."""
        ...

    def take_answer(
        self, node: Node, message: Message, sent_s: float, deliver: Callable[[Node, Message], None]
    ) -> None:
        """Deliver an answer to an append without moving the peer's next index backwards. The peer followed when the
        append left, at `sent_s`; a late answer says no more than that."""
        ...

    def take_question(self, node: Node, term: int) -> bool:
        """A peer says that it leads this term. Whether this one follows it there: then it has heard from its leader."""
        ...

    def take_follower(self, node: Node, term: int, asked_s: float) -> None:
        """A peer followed in this term when it was asked, at `asked_s`, or later."""
        ...

    def take_canvass(self, node: Node, message: Message) -> Message | None:
        """Take a question before an election, and give the answer; or take an answer."""
        ...

    def step_down(self) -> None:
        """Lead no more, and stand no more. The library, whose disk fails in the midst of taking a higher term, has the
        term already and goes on to lead or stand in it."""
        ...

    def wake(self) -> None:
        """A message arrived: tick soon."""
        ...


class _IgnoredError(Exception):
    """The peer is who it says and nothing is exchanged with it."""


@dataclass(slots=True)
class Peer:
    """
    joined_s, framed_s, sign_s   when the stream began, its last frame came, the last datagram came
    stamps_us                    of its last question (True) and answer (False)
    deaf                         it said last that by the stream it hears nothing
    """

    node: Node
    stream: Stream | None = None
    hello: Hello | None = None
    link: Link = field(default_factory=Link)
    sent_s: dict[int, float] = field(default_factory=dict)  # when each append left that is not answered yet
    joined_s: float = 0.0
    framed_s: float = 0.0
    sign_s: float = 0.0
    stamps_us: dict[bool, int] = field(default_factory=dict)
    deaf: bool = False


class PeerTransport(Transport):
    """`peers`: the other members. Runs from `start` on."""

    def __init__(
        self,
        owner: Owner,
        me: Node,
        peers: Iterable[Node],
        *,
        hello: Hello,
        codec: Codec,
        streams: Streams,
        refusals: Refusals,
    ) -> None:
        super().__init__(owner, me, peers)
        self._owner = owner
        self._me: str = me.id
        self._hello = replace(hello, key=os.urandom(KEY_BYTES))
        self._codec = codec
        self._streams = streams
        self._peers = {peer.id: Peer(peer) for peer in sorted(peers, key=lambda peer: str(peer.id))}
        self._tasks: set[asyncio.Task[None]] = set()
        self._gathered: list[tuple[Stream, bytes]] = []
        self._asked_s = 0.0
        self.refusals = refusals
        self.ignored: dict[str, str] = {}
        self.differs: dict[str, str] = {}

    async def start(self) -> None:
        await self._streams.serve(self._converse, self._heard)
        for address in self._peers:
            if self._me > address:
                self._keep(self._dial(address))

    def destroy(self) -> None:
        """The library's word for stopping."""
        for task in self._tasks:
            task.cancel()
        self._streams.close()

    def introduce(self, hello: Hello) -> None:
        """In other words than before: connections end, and the next ones begin with these."""
        self._hello = replace(hello, key=self._hello.key)
        for peer in self._peers.values():
            if peer.stream:
                peer.stream.abort()

    @property
    def fresh_peers(self) -> int:
        """Connected ones that have no log and never had one."""
        return sum(1 for peer in self._peers.values() if peer.stream and peer.hello and peer.hello.fresh)

    def send(self, node: Node, message: Message) -> bool:
        """Called by the library. The messages of one turn of the loop leave together, after one sync of the disk."""
        peer = self._peers.get(node.id)
        if peer is None or peer.stream is None:
            return False
        if peer.stream.unsent > UNSENT_MAX:
            peer.stream.abort()
            return False
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        if message["type"] == "append_entries":
            peer.sent_s[peer.link.sent + 1] = self._owner.now_s
        self._gathered.append((peer.stream, self._codec.encode(outgoing(message, peer.link, self._owner))))
        return True

    def ask_who_follows(self) -> None:
        """On the leader, as often as there is a tick: now and then it asks all peers."""
        now_s = self._owner.now_s
        if now_s - self._asked_s >= ASK_S:
            self._asked_s = now_s
            for peer in self._peers.values():
                self._send_sign(peer, Sign(True, self._owner.term, int(now_s * 1e6)))

    def _send_sign(self, peer: Peer, sign: Sign) -> None:
        if peer.hello and peer.hello.key:
            sign = replace(sign, deaf=self._owner.now_s - peer.framed_s > SILENCE_S)
            self._streams.send(str(peer.node.id), sealed(peer.hello.key + self._hello.key, sign))

    def _heard(self, address: str, datagram: bytes) -> None:
        """A datagram came. One that does not fit is dropped: it may be for an earlier start of this process."""
        peer, now_s = self._peers.get(address), self._owner.now_s
        if peer is None or peer.hello is None or now_s - peer.framed_s > STUCK_S:
            return
        sign = opened(self._hello.key + peer.hello.key, datagram)
        if sign is None or sign.stamp_us <= peer.stamps_us.get(sign.asks, -1):
            return
        peer.sign_s, peer.stamps_us[sign.asks], peer.deaf = now_s, sign.stamp_us, sign.deaf
        if not sign.asks:
            self._owner.take_follower(peer.node, sign.term, sign.stamp_us / 1e6)
        elif self._owner.take_question(peer.node, sign.term):
            self._send_sign(peer, Sign(False, sign.term, sign.stamp_us))

    def _flush(self) -> None:
        """What must be on disk is, before a message leaves. If it cannot be, none does: the next tick says so."""
        gathered, self._gathered = self._gathered, []
        with suppress(DiskError):
            self._owner.barrier()
            for stream, frame in gathered:
                _write(stream, frame)

    async def _dial(self, address: str) -> None:
        """Keep a connection to a peer for as long as the transport runs."""
        peer = self._peers[address]
        while True:
            if peer.stream is None or _stands_still(peer, self._owner.now_s):
                with suppress(OSError, TimeoutError):
                    talk = self._keep(self._converse(await self._streams.dial(address), expected=address))
                    await asyncio.wait({talk}, timeout=HELLO_S)
            await asyncio.sleep(IGNORED_RETRY_S if address in self.ignored else RETRY_S)

    async def _converse(self, stream: Stream, expected: str | None = None) -> None:
        """From the first frame to the last. Never raises for what the other side does."""
        pings: asyncio.Task[None] | None = None
        peer: Peer | None = None
        try:
            _write(stream, self._codec.encode_hello(replace(self._hello, fresh=self._owner.fresh)))
            async with asyncio.timeout(HELLO_S):
                hello = self._codec.decode_hello(await _read(stream, HELLO_MAX))
            peer = self._identify(stream, hello, expected)
            self._weigh(hello)
            self._join(peer, hello, stream)
            pings = asyncio.get_running_loop().create_task(self._ping(peer, stream))
            while peer.stream is stream:
                frame = await _read(stream)
                peer.framed_s = self._owner.now_s
                if frame and peer.stream is stream:
                    self._receive(peer, self._codec.decode(frame))
                if len(frame) >= LARGE:
                    await asyncio.sleep(0)  # a snapshot comes in many of these: others have their turn in between
        except ValueError as violation:
            self.refusals.note(source=stream.source, reason=str(violation))
        except _IgnoredError:
            await asyncio.sleep(LINGER_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # gone or silent: dialled again
        finally:
            if pings:
                pings.cancel()
            stream.abort()
            if peer and peer.stream is stream:
                peer.stream = None
                self._onNodeDisconnected(peer.node)

    def _identify(self, stream: Stream, hello: Hello, expected: str | None) -> Peer:
        """The peer that said hello. Raises ValueError when it is not who it says."""
        ip = hello.address.rpartition(":")[0]
        peer = self._peers.get(hello.address)
        if peer is None or ip != stream.source or expected not in (None, hello.address):
            raise ValueError(f"it calls itself {hello.address[:64]!r}")
        if stream.identity not in (None, ip):
            raise ValueError(f"it calls itself {hello.address} and its certificate is that of {stream.identity[:64]!r}")
        return peer

    def _weigh(self, hello: Hello) -> None:
        """Raises _IgnoredError for a peer that is to be ignored; says so, and what is only to be told, once."""
        judgement = judge(self._hello, hello)
        for what, noted, said in (
            ("a load balancer is ignored", self.ignored, judgement.ignored),
            ("a load balancer has another configuration", self.differs, judgement.differs),
        ):
            if said and noted.get(hello.address) != said:
                log.warning(what, load_balancer=hello.address, reason=said)
            elif not said and hello.address in noted:
                log.info(f"no longer: {what}", load_balancer=hello.address)
            noted.pop(hello.address, None)
            if said:
                noted[hello.address] = said
        if judgement.ignored:
            raise _IgnoredError

    def _join(self, peer: Peer, hello: Hello, stream: Stream) -> None:
        """The newest connection of a peer is the one that counts."""
        if peer.stream:
            peer.stream.abort()
            self._onNodeDisconnected(peer.node)
        if peer.hello and peer.hello.key != hello.key:
            peer.stamps_us = {}  # it was started anew
        peer.stream, peer.hello, peer.link, peer.sent_s = stream, hello, Link(), {}
        peer.joined_s = peer.framed_s = self._owner.now_s
        self._onNodeConnected(peer.node)
        self._owner.wake()

    def _receive(self, peer: Peer, message: Message) -> None:
        """Raises ValueError for a message that no peer in its right mind sends."""
        if not self._owner.learner and message.get("term", 0) > self._owner.term + TERM_JUMP_MAX:
            raise ValueError(f"term {message['term']} is far above ours, {self._owner.term}")
        try:
            self._deliver(peer, message)
        except DiskError:  # not answered; the next tick meets the same disk, and says so
            self._owner.step_down()
        self._owner.wake()

    def _deliver(self, peer: Peer, message: Message) -> None:
        match message["type"]:
            case "append_entries":
                seen, answer = incoming_append(message, peer.link, self._owner)
                self._owner.take_append(peer.node, seen, self._onMessageReceived)
                if answer:
                    self.send(peer.node, answer)
            case "next_node_idx":
                sequence, _ = message["answers"]
                sent_s = peer.sent_s.get(sequence, 0.0)
                peer.sent_s = {later: at_s for later, at_s in peer.sent_s.items() if later > sequence}
                if takes_answer(message, peer.link, self._owner):
                    self._owner.take_answer(peer.node, message, sent_s, self._onMessageReceived)
            case "canvass" | "canvass_answer":
                if answer := self._owner.take_canvass(peer.node, message):
                    self.send(peer.node, answer)
            case "request_vote" | "timeout_now" if self._owner.learner:
                pass
            case _:
                self._onMessageReceived(peer.node, message)

    async def _ping(self, peer: Peer, stream: Stream) -> None:
        """Say that this one is alive, until the other one is silent for too long."""
        while not _silent(peer, self._owner.now_s):
            _write(stream, b"")
            await asyncio.sleep(PING_S)
        stream.abort()

    def _keep(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _stands_still(peer: Peer, now_s: float) -> bool:
    """In one direction at least. What it says while the stream is younger may be about the one before, and read late:
    as after a pause, when all that had come meanwhile is read at once."""
    return now_s - peer.framed_s > SILENCE_S or (peer.deaf and now_s - peer.joined_s > SILENCE_S)


def _silent(peer: Peer, now_s: float) -> bool:
    """Whether it is given up."""
    return now_s - peer.framed_s > (STUCK_S if now_s - peer.sign_s < SILENCE_S else SILENCE_S)


def _write(stream: Stream, frame: bytes) -> None:
    stream.write(LENGTH.pack(len(frame)) + frame)


async def _read(stream: Stream, most: int = FRAME_MAX) -> bytes:
    """One frame. Raises ValueError when its length is out of bounds, before a byte of it is read."""
    (length,) = LENGTH.unpack(await stream.read(LENGTH.size))
    if length > most:
        raise ValueError(f"a frame of {length} bytes; {most} are allowed")
    return await stream.read(length)
