"""Real requests to every endpoint, one new connection each, so that each is balanced anew.

    python -m gale.lab.traffic --endpoints 10.77.1.10:8080,10.77.1.11:8080 --concurrency 8 --rate 200 --interval 0.2

With `--keep` connections are kept until the server says, with an answer or between two, that it ends them.

Prints one JSON line per interval (tally.Sample) and a final one over the whole run. `--rate` and `--concurrency` count
per endpoint; a rate of 0 is as fast as the answers come. It ends on SIGTERM or SIGINT, after `--duration`, and when its
standard input ends, which is also what happens when its parent dies; requests under way are waited for.
"""

import argparse
import asyncio
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import uvloop

from gale.lab.tally import Failure, Sample, Tally

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 2.0
OK = b"HTTP/1.1 200 "


@dataclass(frozen=True, slots=True)
class Plan:
    endpoints: tuple[str, ...]
    concurrency: int
    rate: float
    interval_s: float
    duration_s: float
    keep: bool = False

    def arguments(self) -> list[str]:
        """The command line that `parse` makes this plan of."""
        return [
            f"--endpoints={','.join(self.endpoints)}",
            f"--concurrency={self.concurrency}",
            f"--rate={self.rate}",
            f"--interval={self.interval_s}",
            f"--duration={self.duration_s}",
            *(["--keep"] if self.keep else []),
        ]


class FailedRequestError(Exception):
    """Its text is the kind of failure."""


class Connection(asyncio.Protocol):
    """`kept`: it may be asked again."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._received = b""
        self.kept = True

    def ask(self, request: bytes) -> "asyncio.Future[bytes]":
        """What becomes the body of the answer, one at a time."""
        assert self._transport is not None
        self._answer, self._received = asyncio.get_running_loop().create_future(), b""
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        self._received += data
        header, end, body = self._received.partition(b"\r\n\r\n")
        if end and self._answer and not self._answer.done() and len(body) >= int(field(header, b"content-length")):
            self.kept = field(header, b"connection") != b"close"
            if header.startswith(OK):
                self._answer.set_result(body)
            else:
                self._answer.set_exception(FailedRequestError("bad answer"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.kept = False
        if self._answer and not self._answer.done():
            self._answer.set_exception(FailedRequestError("closed" if exc is None else kind_of(exc)))


def field(header: bytes, name: bytes) -> bytes:
    """In lower case; "0" when there is none."""
    for line in header.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip().lower()
    return b"0"


def kind_of(error: Exception) -> str:
    """One word or two for what went wrong with a connection."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    if code == errno.ETIMEDOUT:
        return "connect timeout"
    return f"client: {error}"


class Client:
    """Of one endpoint. `keep`: the connection."""

    def __init__(self, endpoint: str, keep: bool) -> None:
        host, _, port = endpoint.rpartition(":")
        self._at = host.strip("[]"), int(port)
        self._keep = keep
        connection = "keep-alive" if keep else "close"
        self._request = f"GET / HTTP/1.1\r\nHost: {endpoint}\r\nConnection: {connection}\r\n\r\n".encode()
        self._connection: Connection | None = None

    async def ask(self) -> str:
        """The name in the answer. Raises FailedRequestError."""
        if self._connection is None or not self._connection.kept:
            self._connection = await self._connected()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return (await self._connection.ask(self._request)).decode(errors="replace").strip()
        except TimeoutError:
            self._connection.kept = False
            raise FailedRequestError("answer timeout") from None
        finally:
            if not (self._keep and self._connection.kept):
                self.close()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    async def _connected(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return (await asyncio.get_running_loop().create_connection(Connection, *self._at))[1]
        except TimeoutError:
            raise FailedRequestError("connect timeout") from None
        except OSError as error:
            raise FailedRequestError(kind_of(error)) from None


class Generator:
    """Workers per endpoint that count into the tallies of the current interval."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ending = asyncio.Event()
        self._now = {endpoint: Tally() for endpoint in plan.endpoints}
        self._whole = {endpoint: Tally() for endpoint in plan.endpoints}

    def end(self) -> None:
        self._ending.set()

    async def run(self) -> None:
        begin = time.monotonic()
        workers = [
            asyncio.create_task(self._work(endpoint, number))
            for endpoint in self._plan.endpoints
            for number in range(self._plan.concurrency)
        ]
        at = begin
        while not self._ending.is_set() and at < begin + self._plan.duration_s:
            await self._pause(at + self._plan.interval_s)
            at = self._report(at)
        self.end()
        await asyncio.gather(*workers)
        at = self._report(at)
        emit(Sample(at, at - begin, self._whole, final=True))

    async def _work(self, endpoint: str, number: int) -> None:
        client = Client(endpoint, self._plan.keep)
        period = self._plan.concurrency / self._plan.rate if self._plan.rate else 0.0
        due = time.monotonic() + period * number / self._plan.concurrency
        while not self._ending.is_set():
            await self._pause(due)
            if self._ending.is_set():
                client.close()
                return
            started = time.monotonic()
            try:
                node = await client.ask()
            except FailedRequestError as error:
                self._now[endpoint].fail(Failure(started, str(error)))
            else:
                self._now[endpoint].answered(node, time.monotonic() - started)
            due = max(due + period, started)  # a worker that was held up does not make up for it

    async def _pause(self, until: float) -> None:
        """Wait for a time, or for the end."""
        remaining = until - time.monotonic()
        if remaining > 0:
            try:
                async with asyncio.timeout(remaining):
                    await self._ending.wait()
            except TimeoutError:
                pass

    def _report(self, since: float) -> float:
        at = time.monotonic()
        emit(Sample(at, at - since, self._now))
        for endpoint, tally in self._now.items():
            self._whole[endpoint].add(tally)
        self._now = {endpoint: Tally() for endpoint in self._plan.endpoints}
        return at


def emit(sample: Sample) -> None:
    sys.stdout.write(json.dumps(sample.to_json()) + "\n")
    sys.stdout.flush()


async def generate(plan: Plan) -> None:
    generator = Generator(plan)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, generator.end)
    loop.add_reader(sys.stdin.fileno(), end_at_eof, loop, generator)
    await generator.run()


def end_at_eof(loop: asyncio.AbstractEventLoop, generator: Generator) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        generator.end()


def parse(arguments: Iterable[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(description="send HTTP requests and count the answers")
    parser.add_argument("--endpoints", required=True, help="IP:PORT,IP:PORT,…")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time, per endpoint")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second, per endpoint; 0: no limit")
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between lines")
    parser.add_argument("--duration", type=float, default=600.0, help="seconds after which it ends by itself")
    parser.add_argument("--keep", action="store_true", help="the connections")
    given = parser.parse_args(None if arguments is None else list(arguments))
    endpoints = tuple(given.endpoints.split(","))
    return Plan(endpoints, given.concurrency, given.rate, given.interval, given.duration, given.keep)


if __name__ == "__main__":
    uvloop.run(generate(parse()))
