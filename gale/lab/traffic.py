"""Real requests to every endpoint, one new connection each, so that each is balanced anew.

    python -m gale.lab.traffic --endpoints 10.77.1.10:8080,10.77.1.11:8080 --concurrency 8 --rate 200 --interval 0.2

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

    def arguments(self) -> list[str]:
        """The command line that `parse` makes this plan of."""
        return [
            f"--endpoints={','.join(self.endpoints)}",
            f"--concurrency={self.concurrency}",
            f"--rate={self.rate}",
            f"--interval={self.interval_s}",
            f"--duration={self.duration_s}",
        ]


class FailedRequestError(Exception):
    """Its text is the kind of failure."""


class Exchange(asyncio.Protocol):
    """One request on its own connection; `answer` becomes the answer's body."""

    def __init__(self, request: bytes, answer: "asyncio.Future[bytes]") -> None:
        self._request = request
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their class
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        header, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= content_length(header) and not self._answer.done():
            if header.startswith(OK):
                self._answer.set_result(body)
            else:
                self._answer.set_exception(FailedRequestError("bad answer"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(FailedRequestError("closed" if exc is None else kind_of(exc)))


def content_length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return 0


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


async def ask(host: str, port: int, request: bytes) -> str:
    """The name in the answer. Raises FailedRequestError."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            transport, _ = await loop.create_connection(lambda: Exchange(request, answer), host, port)
    except TimeoutError:
        raise FailedRequestError("connect timeout") from None
    except OSError as error:
        raise FailedRequestError(kind_of(error)) from None
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return (await answer).decode(errors="replace").strip()
    except TimeoutError:
        raise FailedRequestError("answer timeout") from None
    finally:
        transport.close()


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
        host, _, port = endpoint.rpartition(":")
        request = f"GET / HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n".encode()
        period = self._plan.concurrency / self._plan.rate if self._plan.rate else 0.0
        due = time.monotonic() + period * number / self._plan.concurrency
        while not self._ending.is_set():
            await self._pause(due)
            if self._ending.is_set():
                return
            started = time.monotonic()
            try:
                node = await ask(host.strip("[]"), int(port), request)
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
    parser = argparse.ArgumentParser(description="send HTTP requests, one connection each, and count the answers")
    parser.add_argument("--endpoints", required=True, help="IP:PORT,IP:PORT,…")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time, per endpoint")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second, per endpoint; 0: no limit")
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between lines")
    parser.add_argument("--duration", type=float, default=600.0, help="seconds after which it ends by itself")
    given = parser.parse_args(None if arguments is None else list(arguments))
    return Plan(tuple(given.endpoints.split(",")), given.concurrency, given.rate, given.interval, given.duration)


if __name__ == "__main__":
    uvloop.run(generate(parse()))
