"""The server of a lab's node, over HTTP and, where it is told to, over UDP: every answer says which node gave it.

    python -m gale.lab.server --name node-0 --port 80 --port 8082 --udp --ipv6

    GET /             the node's name
    GET /word         the name and the path
    GET /bytes/N      so many bytes
    PUT /…            the name, and how many bytes came
    a datagram        the name, a space and the same bytes

It does what a well-behaved server does to a load balancer's flows: connections are kept or closed as the client
asks. SIGTERM closes the door; what is asked then is answered with word that the connection ends, connections that stay
idle are ended soon, and requests that have begun are answered. A datagram is answered from the address that it came to,
whatever address the way back would suggest.
"""

import argparse
import asyncio
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import cast

import uvloop

HEADER_BYTES_MAX = 16_384
BODY_BYTES_MAX = 1 << 28
DATAGRAM_BYTES_MAX = 65_536
DATAGRAMS_A_TURN = 64
END_OF_HEADER = b"\r\n\r\n"
IDLE_S, LAST_REQUESTS_S = 1.0, 2.0
DATAGRAM_BUFFER, SO_RCVBUFFORCE = 8 << 20, 33  # a server that waits for its turn loses nothing
BYTES_PATH = b"/bytes/"
ANYWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
# The option that asks for a datagram's destination, and the message that tells it and sets the answer's source.
IPV6_RECVPKTINFO, IP_PKTINFO = 49, 8
PACKET_INFO = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_PKTINFO, IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, socket.IPV6_PKTINFO),
}


class Answers:
    """The bytes to send; those of the usual requests are made once. `last`: the connection ends after it."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        body = self._name + b"\n"
        self._texts = {
            (method, last): _response("200 OK", body, last=last, with_body=method == b"GET")
            for method in (b"GET", b"HEAD")
            for last in (False, True)
        }
        self.refused = _response("405 Method Not Allowed", b"GET, HEAD or PUT\n", last=True, with_body=True)
        self.too_long = _response(
            "431 Request Header Fields Too Large", b"header too long\n", last=True, with_body=True
        )

    def to(self, method: bytes, path: bytes, came: int, *, last: bool) -> bytes:
        if method == b"PUT":
            return _response("200 OK", b"%b %d\n" % (self._name, came), last=last, with_body=True)
        if path in (b"/", b""):
            return self._texts[method, last]
        size = path.removeprefix(BYTES_PATH) if path.startswith(BYTES_PATH) else b""
        body = bytes(min(int(size), BODY_BYTES_MAX)) if size.isdigit() else b"%b %b\n" % (self._name, path[1:])
        return _response("200 OK", body, last=last, with_body=method == b"GET")

    def to_datagram(self, datagram: bytes) -> bytes:
        return b"%b %b" % (self._name, datagram)


def _response(status: str, body: bytes, *, last: bool, with_body: bool) -> bytes:
    header = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'close' if last else 'keep-alive'}\r\n\r\n"
    ).encode()
    return header + (body if with_body else b"")


def _field(fields: bytes, name: bytes) -> bytes:
    """The value of a field in lower case, empty when there is none."""
    for line in fields.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip().lower()
    return b""


class Connection(asyncio.Protocol):
    """One client's connection. `open_connections` holds every one, for the server's end."""

    def __init__(self, answers: Answers, open_connections: "set[Connection]", ending: Callable[[], bool]) -> None:
        self._answers = answers
        self._open = open_connections
        self._ending = ending
        self._received = b""
        self._awaited = 0  # of a body that is being received, whose answer is `_then`
        self._then = (b"", False)
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
        if self._awaited:
            taken = min(self._awaited, len(data))
            self._awaited -= taken
            data = data[taken:]
            if self._awaited:
                return
            self._answer(*self._then)
        self._received += data
        while not transport.is_closing() and not self._awaited:
            header, end, rest = self._received.partition(END_OF_HEADER)
            if not end:
                if len(self._received) > HEADER_BYTES_MAX:
                    self._answer(self._answers.too_long, last=True)
                return
            self._received = rest
            self._take(header)

    def _take(self, header: bytes) -> None:
        """Answer a request, or wait for its body first."""
        request_line, _, fields = header.partition(b"\r\n")
        method, _, rest = request_line.partition(b" ")
        size = _field(fields, b"content-length") or b"0"
        if method not in (b"GET", b"HEAD", b"PUT") or not size.isdigit() or int(size) > BODY_BYTES_MAX:
            self._answer(self._answers.refused, last=True)
            return
        connection = _field(fields, b"connection")
        last = b"close" in connection or (rest.endswith(b"HTTP/1.0") and b"keep-alive" not in connection)
        last = last or self._ending()
        answer = self._answers.to(method, rest.partition(b" ")[0], int(size), last=last)
        here = min(int(size), len(self._received))
        self._awaited = int(size) - here
        self._received = self._received[here:]
        if self._awaited:
            self._then = (answer, last)
        else:
            self._answer(answer, last)

    def _answer(self, answer: bytes, last: bool) -> None:
        assert self._transport is not None
        self._transport.write(answer)
        if last or self._ending():
            self._transport.close()

    def close_if_idle(self) -> None:
        if not self._received and not self._awaited and self._transport is not None:
            self._transport.close()


def datagram_socket(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    level, option, _ = PACKET_INFO[family]
    bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.setsockopt(level, option, 1)
    with suppress(PermissionError):  # of who is not root the usual one
        bound.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, DATAGRAM_BUFFER)
    bound.bind((address, port))
    return bound


def answer_datagrams(bound: socket.socket, answers: Answers) -> None:
    """Those that are there, but not all at once: connections have their turn too."""
    for _ in range(DATAGRAMS_A_TURN):
        try:
            datagram, about, _, client = bound.recvmsg(DATAGRAM_BYTES_MAX, 256)
            kept = [item for item in about if item[:2] == (PACKET_INFO[bound.family][0], PACKET_INFO[bound.family][2])]
            bound.sendmsg(
                [answers.to_datagram(datagram)], [(a, b, _source(bound.family, c)) for a, b, c in kept], 0, client
            )
        except BlockingIOError:
            return
        except OSError:
            continue  # an error that an earlier answer has met, told at this one


def _source(family: int, info: bytes) -> bytes:
    """What was the destination as a source: the interface is left to the route back."""
    return bytes(4) + info[4:8] + bytes(4) if family == socket.AF_INET else info[:16] + bytes(4)


async def serve(name: str, addresses: dict[socket.AddressFamily, str], ports: list[int], *, udp: bool) -> None:
    """Answer until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    answers = Answers(name)
    connections: set[Connection] = set()
    made = partial(Connection, answers, connections, ending.is_set)
    servers = []
    for family, address in addresses.items():
        for port in ports:
            servers.append(  # the port may be shared: one process has too few open files for all that a test asks for
                await loop.create_server(made, address, port, family=family, backlog=4096, reuse_port=True)
            )
            if udp:
                bound = datagram_socket(family, address, port)
                loop.add_reader(bound, answer_datagrams, bound, answers)
    await ending.wait()
    for server in servers:
        server.close()
    await lost(connections, IDLE_S)
    for connection in list(connections):
        connection.close_if_idle()
    await lost(connections, LAST_REQUESTS_S)


async def lost(connections: set[Connection], within_s: float) -> None:
    if connections:
        await asyncio.wait([connection.lost for connection in connections], timeout=within_s)


def raise_open_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    parser = argparse.ArgumentParser(description="answer requests with a name")
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", help="the only one, of IPv4")
    parser.add_argument("--port", type=int, action="append", default=[], help="as many as needed")
    parser.add_argument("--udp", action="store_true", help="answer datagrams as well")
    parser.add_argument("--ipv6", action="store_true", help="on every address of IPv6 as well")
    options = parser.parse_args()
    raise_open_files()
    addresses = {socket.AF_INET: options.address or ANYWHERE[socket.AF_INET]}
    if options.ipv6:
        addresses[socket.AF_INET6] = ANYWHERE[socket.AF_INET6]
    uvloop.run(serve(options.name, addresses, options.port or [80], udp=options.udp))


if __name__ == "__main__":
    main()
