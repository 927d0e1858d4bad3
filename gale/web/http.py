"""HTTP/1.1, by h11, on the loop that Raft runs on: strangers may reach it, so that everything has a bound.

A connection may be silent for IDLE_S, and a request, once begun, must be whole within READ_S; its head and its body
have a greatest size; an answer must be taken within WRITE_S. One address gets a share of the connections, and asks no
faster than PACE allows: who is faster is read more slowly. Nothing is kept for a connection but what it asks just now.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import h11

from gale.door import Bounds
from gale.rpc.limits import Limits, Sources
from gale.tls import Identity, identity

BOUNDS = Bounds(connections=128, per_source=32, read_ahead=16 * 1024)
PACE = Limits(calls_per_s=50, burst=100, open_per_source=32, open_in_all=128, connections=128)
HEAD_MAX = 16 * 1024
BODY_MAX = 4 * 1024
READ_S = 5.0
IDLE_S = 30.0
WRITE_S = 30.0
PIECE = 64 * 1024

TEXT = "text/plain; charset=utf-8"
# Nothing from elsewhere is loaded, nobody may frame what is shown, and what is read elsewhere stays there.
ALWAYS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Request:
    """`headers`: names in lower case. `who`: whom the caller's certificate names; None without one."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    who: Identity | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`body`: in one piece or many."""

    body: str | Sequence[bytes]
    code: int = 200
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def pieces(self) -> Sequence[bytes]:
        return (self.body.encode(),) if isinstance(self.body, str) else self.body


Asked = Callable[[Request], Awaitable[Answer]]


class Http:
    """What is done with the connections of one Door. `asked`: answers requests."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._sources = Sources(PACE)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str) -> None:
        """One connection, until it ends. Raises ValueError for what is no HTTP, or takes too long."""
        try:
            await self._converse(reader, writer, source)
            async with asyncio.timeout(WRITE_S):
                writer.close()
                await writer.wait_closed()
        except ConnectionError:
            return  # it has left in the middle, as people do
        except TimeoutError:
            raise ValueError("it does not take its answer") from None

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str) -> None:
        who = _who(writer)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        wait_s = READ_S
        while True:
            try:
                async with asyncio.timeout(wait_s) as limit:
                    request = await _request(connection, reader, who, limit)
            except h11.RemoteProtocolError as error:
                if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    refusal = Answer(f"{error}\n", error.error_status_hint, headers={"connection": "close"})
                    await _send(connection, writer, refusal)
                    writer.close()
                raise ValueError(f"no HTTP: {error}") from None
            except TimeoutError:
                if connection.our_state is h11.IDLE and not connection.trailing_data[0]:
                    return  # it has nothing to ask, or nothing more
                raise ValueError("its request takes too long") from None
            if request is None:
                return
            await self._answer(connection, writer, source, request)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
            wait_s = IDLE_S

    async def _answer(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, source: str, request: Request
    ) -> None:
        delay_s = self._sources.enter(source, asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(delay_s)
            answer = await self._asked(request)
            await _send(connection, writer, answer, whole=request.method != "HEAD")
        finally:
            self._sources.leave(source)


async def _request(
    connection: h11.Connection, reader: asyncio.StreamReader, who: Identity | None, limit: asyncio.Timeout
) -> Request | None:
    """The next one; None at the end. From its first byte on it has READ_S."""
    head: h11.Request | None = None
    body = b""
    begun = False
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            content = await reader.read(HEAD_MAX)
            if content and not begun:
                begun = True
                limit.reschedule(asyncio.get_running_loop().time() + READ_S)
            connection.receive_data(content)
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_MAX:
                raise h11.RemoteProtocolError(f"a body of more than {BODY_MAX} bytes", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage) and head:
            return _read(head, body, who)
        else:
            return None


def _read(head: h11.Request, body: bytes, who: Identity | None) -> Request:
    target = urlsplit(head.target.decode("ascii"))
    query = dict(parse_qsl(target.query, max_num_fields=10))
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode("ascii"), target.path, query, headers, body, who)


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, whole: bool = True) -> None:
    pieces = answer.pieces
    headers = {
        **ALWAYS,
        "content-type": answer.kind,
        "content-length": str(sum(map(len, pieces))),
        **answer.headers,
    }
    head = h11.Response(status_code=answer.code, headers=list(headers.items()))
    async with asyncio.timeout(WRITE_S):
        writer.write(connection.send(head) or b"")
        for piece in pieces if whole else ():
            for begin in range(0, len(piece), PIECE):
                writer.write(connection.send(h11.Data(data=piece[begin : begin + PIECE])) or b"")
                await writer.drain()
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()


def _who(writer: asyncio.StreamWriter) -> Identity | None:
    """Raises ValueError when a certificate is shown that is not of gale."""
    tls = writer.get_extra_info("ssl_object")
    shown = tls.getpeercert(binary_form=True) if tls else None
    return identity(shown) if shown else None
