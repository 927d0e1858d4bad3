"""The wire between load balancers: one TCP connection per pair, frames with a length before them, nothing unpickled.

The load balancer with the greater address dials; both sides say who they are in their first frame. Bounds come before
trust: a connection from an address that is not listed is closed unread, a frame's length is checked before its body is
read, the first frame must come soon, and a peer that is silent for a second (alive ones ping ten times as often) is
dropped and dialled again. What breaks the form ends the connection and is counted; the log says so once a second at
most, because strangers can cause it.

Between here and the library stand the four rules of rules.py.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from gale.raft.journal import DiskError
from gale.raft.rules import Link, Log, Message, incoming_append, outgoing, takes_answer

log = structlog.get_logger()

FRAME_MAX = 4 << 20
UNSENT_MAX = 32 << 20
CONNECT_S = 0.5
RETRY_S = 0.2
HELLO_S = 1.0
SILENCE_S = 1.0
PING_S = 0.1
TERM_JUMP_MAX = 10_000
CONNECTIONS_MAX = 64
CONNECTIONS_PER_SOURCE_MAX = 4

LENGTH = struct.Struct(">I")


class Codec(Protocol):
    """gale/rpc/raft_codec.py; every decoder raises ValueError for what is out of form."""

    def encode_hello(self, address: str) -> bytes: ...
    def decode_hello(self, frame: bytes) -> str: ...
    def encode(self, message: Message) -> bytes: ...
    def decode(self, frame: bytes) -> Message: ...


class Owner(Log, Protocol):
    """The replica, as its transport knows it."""

    def barrier(self) -> None:
        """Return once everything that a message may promise is on disk. Raises DiskError."""
        ...

    def take_answer(self, node: Node, message: Message, deliver: Callable[[Node, Message], None]) -> None:
        """Deliver an answer to an append without moving the peer's next index backwards."""
        ...

    def wake(self) -> None:
        """A message arrived: tick soon."""
        ...


@dataclass(slots=True)
class Peer:
    node: Node
    writer: asyncio.StreamWriter | None = None
    link: Link = field(default_factory=Link)


class PeerTransport(Transport):
    """`me` and the peers are quorum addresses, "IP:PORT". Listens from construction on, runs from `start` on."""

    def __init__(self, owner: Owner, me: Node, peers: Iterable[Node], *, codec: Codec) -> None:
        super().__init__(owner, me, peers)
        self._owner = owner
        self._me: str = me.id
        self._codec = codec
        self._peers = {peer.id: Peer(peer) for peer in peers}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._closed = False
        self._accepted: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._complained_s = 0.0
        self.violations = 0
        ip, _, port = self._me.rpartition(":")
        self._listener = socket.create_server((ip, int(port)), backlog=128)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._listener, limit=FRAME_MAX)
        for address in self._peers:
            if self._me > address:
                self._keep(self._dial(address))

    def destroy(self) -> None:
        """The library's word for stopping. What is aborted here is closed in the loop's next turns."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for writer in list(self._open):
            writer.transport.abort()
        if self._server:
            self._server.close()
        self._listener.close()

    def send(self, node: Node, message: Message) -> bool:
        """Called by the library. What must be on disk is, before the message leaves."""
        peer = self._peers.get(node.id)
        if peer is None or peer.writer is None:
            return False
        if peer.writer.transport.get_write_buffer_size() > UNSENT_MAX:
            peer.writer.transport.abort()
            return False
        self._owner.barrier()
        self._write(peer.writer, self._codec.encode(outgoing(message, peer.link, self._owner)))
        return True

    async def _dial(self, address: str) -> None:
        """Keep one connection to a peer for as long as the transport runs."""
        ip, _, port = address.rpartition(":")
        mine = self._me.rpartition(":")[0]
        while True:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_connection(ip, int(port), local_addr=(mine, 0), limit=FRAME_MAX)
                await self._converse(reader, writer, expected=address)
            await asyncio.sleep(RETRY_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source, _ = writer.get_extra_info("peername") or ("gone", 0)
        listed = {address.rpartition(":")[0] for address in self._peers}
        held = self._accepted.get(source, 0)
        if self._closed:
            writer.transport.abort()
        elif source not in listed:
            self._refuse(writer, source, "its address is not in load_balancer_quorum.addresses")
        elif held >= CONNECTIONS_PER_SOURCE_MAX or sum(self._accepted.values()) >= CONNECTIONS_MAX:
            self._refuse(writer, source, "too many connections")
        else:
            self._accepted[source] = held + 1
            try:
                await self._converse(reader, writer, expected=None)
            finally:
                self._accepted[source] -= 1

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, expected: str | None) -> None:
        """From the first frame to the last. Never raises for what the other side does."""
        source, _ = writer.get_extra_info("peername") or ("gone", 0)
        pings: asyncio.Task[None] | None = None
        peer: Peer | None = None
        self._open.add(writer)
        try:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._write(writer, self._codec.encode_hello(self._me))
            async with asyncio.timeout(HELLO_S):
                address = self._codec.decode_hello(await _read(reader))
            peer = self._peers.get(address)
            if peer is None or address.rpartition(":")[0] != source or expected not in (None, address):
                raise ValueError(f"it calls itself {address[:64]!r}")
            self._join(peer, writer)
            pings = asyncio.get_running_loop().create_task(self._ping(writer))
            while peer.writer is writer:
                async with asyncio.timeout(SILENCE_S):
                    frame = await _read(reader)
                if frame and peer.writer is writer:
                    self._receive(peer, self._codec.decode(frame))
        except ValueError as violation:
            self._refuse(writer, source, str(violation))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # gone or silent: dialled again
        finally:
            if pings:
                pings.cancel()
            writer.transport.abort()
            if peer and peer.writer is writer:
                peer.writer = None
                self._onNodeDisconnected(peer.node)
            self._open.discard(writer)

    def _join(self, peer: Peer, writer: asyncio.StreamWriter) -> None:
        """The newest connection of a peer is the one that counts."""
        if peer.writer:
            peer.writer.transport.abort()
            self._onNodeDisconnected(peer.node)
        peer.writer, peer.link = writer, Link()
        self._onNodeConnected(peer.node)
        self._owner.wake()

    def _receive(self, peer: Peer, message: Message) -> None:
        """Raises ValueError for a message that no peer in its right mind sends."""
        if message.get("term", 0) > self._owner.term + TERM_JUMP_MAX:
            raise ValueError(f"term {message['term']} is far above ours, {self._owner.term}")
        with suppress(DiskError):  # not answered; the next tick meets the same disk, and says so
            self._deliver(peer, message)
        self._owner.wake()

    def _deliver(self, peer: Peer, message: Message) -> None:
        match message["type"]:
            case "append_entries":
                seen, answer = incoming_append(message, peer.link, self._owner)
                self._onMessageReceived(peer.node, seen)
                if answer:
                    self.send(peer.node, answer)
            case "next_node_idx":
                if takes_answer(message, peer.link, self._owner):
                    self._owner.take_answer(peer.node, message, self._onMessageReceived)
            case _:
                self._onMessageReceived(peer.node, message)

    async def _ping(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._write(writer, b"")
            await asyncio.sleep(PING_S)

    def _write(self, writer: asyncio.StreamWriter, frame: bytes) -> None:
        if not writer.is_closing():
            writer.write(LENGTH.pack(len(frame)) + frame)

    def _refuse(self, writer: asyncio.StreamWriter, source: str, reason: str) -> None:
        self.violations += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._complained_s >= 1.0:
            self._complained_s = now_s
            log.warning("raft connection refused", source=source, reason=reason, refused_so_far=self.violations)
        writer.transport.abort()

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read(reader: asyncio.StreamReader) -> bytes:
    """One frame. Raises ValueError when its length is out of bounds, before a byte of it is read."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > FRAME_MAX:
        raise ValueError(f"a frame of {length} bytes; {FRAME_MAX} are allowed")
    return await reader.readexactly(length)
