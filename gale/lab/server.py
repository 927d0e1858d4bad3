"""The HTTP server of a lab's node: every request is answered with the node's name.

    python -m gale.lab.server --name node-0 --port 80

It does what a well-behaved server does to a load balancer's flows: connections are kept or closed as the client
asks, and SIGTERM closes the door, ends idle connections and lets requests that have begun be answered.
"""

import argparse
import asyncio
import signal
from collections.abc import Callable
from typing import cast

import uvloop

HEADER_BYTES_MAX = 16_384
END_OF_HEADER = b"\r\n\r\n"
LAST_REQUESTS_S = 2.0


class Answers:
    """The bytes to send, made once. `last` says that the connection ends after it."""

    def __init__(self, name: str) -> None:
        body = f"{name}\n".encode()
        self._texts = {
            (method, last): _response("200 OK", body, last=last, with_body=method == "GET")
            for method in ("GET", "HEAD")
            for last in (False, True)
        }
        self.refused = _response("405 Method Not Allowed", b"GET or HEAD\n", last=True, with_body=True)
        self.too_long = _response(
            "431 Request Header Fields Too Large", b"header too long\n", last=True, with_body=True
        )

    def to(self, header: bytes) -> tuple[bytes, bool]:
        """The answer to a request's header, and whether it is the last on its connection."""
        request_line, _, fields = header.partition(b"\r\n")
        method, _, rest = request_line.partition(b" ")
        if method not in (b"GET", b"HEAD"):
            return self.refused, True
        connection = _connection(fields)
        last = b"close" in connection or (rest.endswith(b"HTTP/1.0") and b"keep-alive" not in connection)
        return self._texts[method.decode(), last], last


def _response(status: str, body: bytes, *, last: bool, with_body: bool) -> bytes:
    header = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'close' if last else 'keep-alive'}\r\n\r\n"
    ).encode()
    return header + (body if with_body else b"")


def _connection(fields: bytes) -> bytes:
    """The value of the Connection field in lower case, empty when there is none."""
    for line in fields.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == b"connection":
            return value.strip().lower()
    return b""


class Connection(asyncio.Protocol):
    """One client's connection. `open_connections` holds every one, for the server's end."""

    def __init__(self, answers: Answers, open_connections: "set[Connection]", ending: Callable[[], bool]) -> None:
        self._answers = answers
        self._open = open_connections
        self._ending = ending
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        self._received += data
        while not transport.is_closing():
            header, end, rest = self._received.partition(END_OF_HEADER)
            if not end:
                if len(self._received) > HEADER_BYTES_MAX:
                    transport.write(self._answers.too_long)
                    transport.close()
                return
            self._received = rest
            answer, last = self._answers.to(header)
            transport.write(answer)
            if last or self._ending():
                transport.close()

    def close_if_idle(self) -> None:
        if not self._received and self._transport is not None:
            self._transport.close()


async def serve(name: str, address: str, port: int) -> None:
    """Answer until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    answers = Answers(name)
    connections: set[Connection] = set()
    server = await loop.create_server(
        lambda: Connection(answers, connections, ending.is_set), address, port, backlog=4096
    )
    await ending.wait()
    server.close()
    for connection in list(connections):
        connection.close_if_idle()
    if connections:
        await asyncio.wait([connection.lost for connection in connections], timeout=LAST_REQUESTS_S)


def main() -> None:
    parser = argparse.ArgumentParser(description="answer HTTP requests with a name")
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=80)
    options = parser.parse_args()
    uvloop.run(serve(options.name, options.address, options.port))


if __name__ == "__main__":
    main()
