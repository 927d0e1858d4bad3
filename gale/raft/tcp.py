"""Streams over TCP, with TLS when there are certificates; and datagrams over UDP.

Strangers are turned away (gale/door.py): an address that is not listed before anything is read, a certificate that is
not a load balancer's before a byte of it is parsed here.
"""

import asyncio
import socket
import ssl
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from gale.door import Bounds, Door
from gale.errors import HostError
from gale.log import Refusals
from gale.raft.streams import Stream
from gale.raft.transport import FRAME_MAX
from gale.raft.udp import Datagrams
from gale.tls import Credentials, Role, identity

CONNECT_S = 0.4
BOUNDS = Bounds(connections=64, per_source=4, read_ahead=FRAME_MAX)


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
        self._open: weakref.WeakSet[TcpStream] = weakref.WeakSet()
        try:
            listener = socket.create_server((self._ip, int(port)), backlog=128)
        except OSError as error:
            raise HostError(f"Raft cannot listen on {me}: {error.strerror}") from error
        try:
            self._datagrams = Datagrams(me, [member for member in members if member != me])
        except HostError:
            listener.close()
            raise
        context = credentials.server_context if credentials else None
        self._door = Door(listener, BOUNDS, refusals, context, self._unlisted)

    async def serve(self, accepted: Callable[[Stream], Awaitable[None]], heard: Callable[[str, bytes], None]) -> None:
        async def admitted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str) -> None:
            stream = TcpStream(reader, writer)
            stream.demand(source)
            self._open.add(stream)
            await accepted(stream)

        self._datagrams.serve(heard)
        self._door.open(admitted)

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
        for stream in self._open:
            stream.abort()
        self._door.close()

    def _unlisted(self, source: str) -> str:
        return "" if source in self._listed else "its address is not in load_balancer_quorum.addresses"


def _load_balancer(writer: asyncio.StreamWriter) -> str | None:
    """Whom the peer's certificate names; None without TLS."""
    tls = writer.get_extra_info("ssl_object")
    if tls is None:
        return None
    named = identity(tls.getpeercert(binary_form=True))
    if named.role is not Role.LOAD_BALANCER:
        raise ValueError(f"its certificate is that of a {named.role}, {named.name}")
    return named.name
