"""A listening TCP socket that strangers can reach: how many may be let in, from where, and for how long they may dally.

Strangers are turned away as early and as cheaply as can be: an address that may not before anything is read, too many
connections before the handshake, a handshake that takes too long soon. When the system has no file descriptor left,
listening pauses and goes on. Whoever is turned away is counted.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gale.log import Refusals

HANDSHAKE_S = 1.0
PAUSE_S = 0.1

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]
"""What is done with a connection, and the address it comes from. ValueError: the peer is refused, and why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of connections: in all, from one address, and how many bytes of each are read ahead."""

    connections: int
    per_source: int
    read_ahead: int


class Door:
    """`refuses`: why an address may not come in, empty if it may. `context`: asked at each connection, where there is
    TLS. Owns the listener."""

    def __init__(
        self,
        listener: socket.socket,
        bounds: Bounds,
        refusals: Refusals,
        context: Callable[[], ssl.SSLContext] | None = None,
        refuses: Callable[[str], str] = lambda source: "",
    ) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._bounds = bounds
        self._refusals = refusals
        self._context = context
        self._refuses = refuses
        self._held: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return str(self._listener.getsockname()[0])

    def open(self, serve: Serve) -> None:
        self._spawn(self._accept(serve))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._listener.close()

    async def _accept(self, serve: Serve) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, (source, *_) = await loop.sock_accept(self._listener)
            except OSError as error:  # no descriptor is left, or the peer is gone again
                self._refusals.note(source="listener", reason=f"cannot accept: {error.strerror}")
                await asyncio.sleep(PAUSE_S)
                continue
            held, bounds = self._held.get(source, 0), self._bounds
            reason = self._refuses(source)
            if not reason and (held >= bounds.per_source or sum(self._held.values()) >= bounds.connections):
                reason = "too many connections"
            if reason:
                self._refusals.note(source=source, reason=reason)
                connection.close()
            else:
                self._held[source] = held + 1
                self._spawn(self._admit(connection, source, serve))

    async def _admit(self, connection: socket.socket, source: str, serve: Serve) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=self._bounds.read_ahead)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport: asyncio.Transport | None = None
        secure: dict[str, Any] = {}
        try:
            if self._context:
                secure = {"ssl": self._context(), "ssl_handshake_timeout": HANDSHAKE_S}
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, **secure)
            await serve(reader, asyncio.StreamWriter(transport, protocol, reader, loop), source)
        except ValueError as violation:
            self._refusals.note(source=source, reason=str(violation))
        except (OSError, ssl.SSLError, TimeoutError) as error:
            what = str(error) or "it left in the middle"
            self._refusals.note(source=source, reason=f"no TLS: {what}" if secure else what)
        finally:
            if transport:
                transport.abort()
            self._leave(source)

    def _leave(self, source: str) -> None:
        self._held[source] -= 1
        if not self._held[source]:
            del self._held[source]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
