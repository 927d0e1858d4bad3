"""Flows that are kept: each asks again and again, and what is answered is looked at: by whom, and to whom.

    python -m gale.lab.flows --at 10.77.1.10:8080 --flows 1000 --interval 0.5 [--protocol udp] [--source 10.77.1.200]

A flow is a TCP connection, or a UDP socket, that asks with a word of its own (server.py answers with the node's name
and that word). One that fails is broken and stays so: nothing is opened again. Prints one JSON line (Round) for each
time that all were asked, the first when all have been opened or refused. Ends like traffic.py does.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import uvloop

OPEN_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 4.0
"""TCP sends again after 0.2, 0.6, 1.4 and 3 seconds: what a node was asked as it died is still heard by another."""
OPENED_AT_ONCE = 200
BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT: an address now, a port when it is known whom it is for
END_OF_HEADER = b"\r\n\r\n"


class BrokenFlowError(Exception):
    """Its text says how."""


class Broken(NamedTuple):
    """`node`: whose flow it was; "" when none had answered yet. `at_s`: monotonic, when it was known."""

    at_s: float
    node: str
    kind: str


@dataclass(frozen=True, slots=True)
class Round:
    """One time that every flow was asked. Counts are of flows.

    broken   those that did since the round before
    crossed  answers that bore another flow's word, since the beginning
    moved    answers that bore another node's name than the one before, since the beginning
    """

    began_s: float
    ended_s: float
    number: int
    opened: int
    alive: int
    crossed: int
    moved: int
    nodes: dict[str, int] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Round":
        return cls(**{**record, "broken": [Broken(*entry) for entry in record["broken"]]})


class Flow(asyncio.Protocol, asyncio.DatagramProtocol):
    """`node`: who answered last, "" before. `broken`: how it broke, "" while it has not."""

    def __init__(self, word: str, tcp: bool) -> None:
        self.word = word
        self.node = ""
        self.broken = ""
        self.crossed = 0
        self.moved = 0
        self._tcp = tcp
        self._received = b""
        self._send: Callable[[], None] | None = None  # asks, once there is something to ask through
        self._transport: asyncio.BaseTransport | None = None
        self._answer: asyncio.Future[bytes] | None = None

    async def open(self, host: str, port: int, source: tuple[str, int] | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                if self._tcp:
                    family = socket.AF_INET6 if ":" in host else socket.AF_INET
                    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                    if source:
                        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        bound.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
                        bound.bind(source)
                    await loop.sock_connect(bound, (host, port))
                    await loop.create_connection(lambda: self, sock=bound)
                else:
                    await loop.create_datagram_endpoint(lambda: self, local_addr=source, remote_addr=(host, port))
        except TimeoutError:
            self.broken = "not opened: timeout"
        except OSError as error:
            self.broken = f"not opened: {error.strerror or error}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        # uvloop's transports are asyncio's in all but their class
        if self._tcp:
            request = f"GET /{self.word} HTTP/1.1\r\nHost: lab\r\n\r\n".encode()
            self._send = partial(cast(asyncio.Transport, transport).write, request)
        else:
            self._send = partial(cast(asyncio.DatagramTransport, transport).sendto, self.word.encode())

    def data_received(self, data: bytes) -> None:
        self._received += data
        _, end, body = self._received.partition(END_OF_HEADER)
        if end and body.endswith(b"\n"):
            self._received = b""
            self._take(body)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._take(data)

    def _take(self, body: bytes) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(body)

    def error_received(self, exc: Exception) -> None:
        self._fail(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc)

    def _fail(self, error: Exception | None) -> None:
        kind = "closed" if error is None else "reset" if isinstance(error, ConnectionResetError) else str(error)
        if self._answer and not self._answer.done():
            self._answer.set_exception(BrokenFlowError(kind))
        elif self._tcp:
            self.broken = self.broken or kind

    async def ask(self) -> None:
        """A question and its answer; what goes wrong is noted."""
        if self.broken or self._send is None or self._transport is None:
            return
        self._answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                self._send()
                node, _, word = (await self._answer).decode(errors="replace").strip().partition(" ")
        except TimeoutError:
            self.broken = "no answer"
        except BrokenFlowError as error:
            self.broken = str(error)
        else:
            self.crossed += word != self.word
            self.moved += node != (self.node or node)
            self.node = node
        if self.broken:
            self._transport.close()


class Flows:
    def __init__(self, given: argparse.Namespace) -> None:
        host, _, port = given.at.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._sources = given.source or [None]
        self._first_port = given.first_port
        self._interval_s = given.interval
        self._ending = asyncio.Event()
        self._flows = [Flow(f"{given.seed}-{number}", given.protocol == "tcp") for number in range(given.flows)]
        self._told: set[Flow] = set()

    def end(self) -> None:
        self._ending.set()

    async def run(self) -> None:
        gate = asyncio.Semaphore(OPENED_AT_ONCE)
        number, began_s = 0, time.monotonic()
        await asyncio.gather(*(self._open(flow, i, gate) for i, flow in enumerate(self._flows)))
        while True:
            self._report(number, began_s)
            try:
                async with asyncio.timeout(max(0.0, began_s + self._interval_s - time.monotonic())):
                    await self._ending.wait()
                return
            except TimeoutError:
                number, began_s = number + 1, time.monotonic()
            await asyncio.gather(*(flow.ask() for flow in self._flows if not flow.broken))

    async def _open(self, flow: Flow, number: int, gate: asyncio.Semaphore) -> None:
        """Flows take turns among the sources; with a first port each source counts up from it."""
        source = self._sources[number % len(self._sources)]
        port = self._first_port + number // len(self._sources) if self._first_port else 0
        async with gate:
            if not self._ending.is_set():
                await flow.open(self._host, self._port, (source, port) if source else None)
                await flow.ask()

    def _report(self, number: int, began_s: float) -> None:
        now_s = time.monotonic()
        news = [flow for flow in self._flows if flow.broken and flow not in self._told]
        self._told.update(news)
        answered = [flow for flow in self._flows if flow.node]
        round_ = Round(
            began_s,
            now_s,
            number,
            len(answered),
            sum(not flow.broken for flow in answered),
            sum(flow.crossed for flow in self._flows),
            sum(flow.moved for flow in self._flows),
            dict(Counter(flow.node for flow in answered if not flow.broken)),
            [Broken(now_s, flow.node, flow.broken) for flow in news],
        )
        sys.stdout.write(json.dumps(asdict(round_)) + "\n")
        sys.stdout.flush()


async def keep(given: argparse.Namespace) -> None:
    flows = Flows(given)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, flows.end)
    loop.add_reader(sys.stdin.fileno(), _end_at_eof, flows)
    await flows.run()


def _end_at_eof(flows: Flows) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        flows.end()


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="keep flows and ask on each, again and again")
    parser.add_argument("--at", required=True, help="IP:PORT or [IPV6]:PORT")
    parser.add_argument("--flows", type=int, default=100)
    parser.add_argument("--interval", type=float, default=0.5, help="seconds from one round to the next")
    parser.add_argument("--protocol", choices=["tcp", "udp"], default="tcp")
    parser.add_argument("--source", action="append", help="an address of ours; flows take turns among several")
    parser.add_argument("--first-port", type=int, default=0, help="our ports, counted up from here for each source")
    parser.add_argument("--seed", default="0", help="what every word begins with")
    return parser.parse_args(None if arguments is None else list(arguments))


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(keep(parse()))
