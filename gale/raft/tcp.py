"""Streams over TCP, with TLS when there are certificates; and datagrams over UDP.

Strangers are turned away as early and as cheaply as can be: an address that is not listed before anything is read, too
many connections before the handshake, a certificate that is not a load balancer's before a byte of it is parsed here.
When the system has no file descriptor left, listening pauses and goes on.
"""

import asyncio
import socket
import ssl
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from gale.errors import HostError
from gale.log import Refusals
from gale.raft.streams import Stream
from gale.raft.transport import FRAME_MAX
from gale.raft.udp import Datagrams
from gale.tls import Credentials, Role, identity

CONNECT_S = 0.4
HANDSHAKE_S = 1.0
PAUSE_S = 0.1
CONNECTIONS_MAX = 64
CONNECTIONS_PER_SOURCE_MAX = 4


class TcpStream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Raises ValueError when there is a certificate and it is not a load balancer's."""
        self._reader = reader
        self._writer = writer
        self.source = str((writer.get_extra_info("peername") or ("gone", 0))[0])
        self.identity = _load_balancer(writer)
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def demand(self, ip: str) -> None:
        """Raises ValueError when there is a certificate and it is that of another load balancer."""
        if self.identity not in (None, ip):
            raise ValueError(f"its certificate is that of {self.identity}")

    @property
    def unsent(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    async def read(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    def write(self, content: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(content)

    def abort(self) -> None:
        self._writer.transport.abort()


class TcpStreams:
    """`me` and `members`: addresses "IP:PORT". Listens from construction on; HostError when it cannot."""

    def __init__(
        self, me: str, members: tuple[str, ...], refusals: Refusals, credentials: Credentials | None = None
    ) -> None:
        self._ip, _, port = me.rpartition(":")
        self._listed = {member.rpartition(":")[0] for member in members if member != me}
        self._refusals = refusals
        self._credentials = credentials
        self._held: dict[str, int] = {}
        self._open: weakref.WeakSet[TcpStream] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            self._listener = socket.create_server((self._ip, int(port)), backlog=128)
        except OSError as error:
            raise HostError(f"Raft cannot listen on {me}: {error.strerror}") from error
        self._listener.setblocking(False)
        try:
            self._datagrams = Datagrams(me, [member for member in members if member != me])
        except HostError:
            self._listener.close()
            raise

    async def serve(self, accepted: Callable[[Stream], Awaitable[None]], heard: Callable[[str, bytes], None]) -> None:
        self._datagrams.serve(heard)
        self._spawn(self._accept(accepted))

    async def dial(self, address: str) -> TcpStream:
        ip, _, port = address.rpartition(":")
        tls: dict[str, Any] = {}
        if self._credentials:
            tls = {"ssl": self._credentials.client_context(), "server_hostname": ip}
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    ip, int(port), local_addr=(self._ip, 0), limit=FRAME_MAX, **tls
                )
        except ssl.SSLError as error:
            self._refusals.note(source=ip, reason=f"no TLS: {error}")
            raise
        try:
            stream = TcpStream(reader, writer)
            stream.demand(ip)
        except ValueError as violation:
            writer.transport.abort()
            self._refusals.note(source=ip, reason=str(violation))
            raise ConnectionRefusedError(str(violation)) from violation
        self._open.add(stream)
        return stream

    def send(self, address: str, datagram: bytes) -> None:
        self._datagrams.send(address, datagram)

    def close(self) -> None:
        self._datagrams.close()
        for task in self._tasks:
            task.cancel()
        for stream in self._open:
            stream.abort()
        self._listener.close()

    async def _accept(self, accepted: Callable[[Stream], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, (source, *_) = await loop.sock_accept(self._listener)
            except OSError as error:  # no descriptor is left, or the peer is gone again
                self._refusals.note(source="listener", reason=f"cannot accept: {error.strerror}")
                await asyncio.sleep(PAUSE_S)
                continue
            held = self._held.get(source, 0)
            if source not in self._listed:
                self._refusals.note(source=source, reason="its address is not in load_balancer_quorum.addresses")
                connection.close()
            elif held >= CONNECTIONS_PER_SOURCE_MAX or sum(self._held.values()) >= CONNECTIONS_MAX:
                self._refusals.note(source=source, reason="too many connections")
                connection.close()
            else:
                self._held[source] = held + 1
                self._spawn(self._admit(connection, source, accepted))

    async def _admit(
        self, connection: socket.socket, source: str, accepted: Callable[[Stream], Awaitable[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=FRAME_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        secure: dict[str, Any] = {}
        if self._credentials:
            secure = {"ssl": self._credentials.server_context(), "ssl_handshake_timeout": HANDSHAKE_S}
        stream: TcpStream | None = None
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, **secure)
            try:
                stream = TcpStream(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
                stream.demand(source)
            except ValueError:
                transport.abort()
                raise
            self._open.add(stream)
            await accepted(stream)
        except ValueError as violation:
            self._refusals.note(source=source, reason=str(violation))
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._refusals.note(source=source, reason=f"no TLS: {error}" if self._credentials else str(error))
        finally:
            if stream:
                stream.abort()
            self._held[source] -= 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _load_balancer(writer: asyncio.StreamWriter) -> str | None:
    """Whom the peer's certificate names; None without TLS."""
    tls = writer.get_extra_info("ssl_object")
    if tls is None:
        return None
    named = identity(tls.getpeercert(binary_form=True))
    if named.role is not Role.LOAD_BALANCER:
        raise ValueError(f"its certificate is that of a {named.role}, {named.name}")
    return named.name
