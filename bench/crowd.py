"""Thousands of nodes in one process, each with an address of its own.

    python bench/crowd.py --servers 10.77.2.10:7070,10.77.2.11:7070 --nodes 10000 --interval 1.67 --reports-to 3

Every node has one connection to each server, bound to its address 10.78.x.y, and on it one call of NodeService.Checks.
gRPC cannot bind the addresses of its connections and costs a fifth of a millisecond a check, so the few frames of
HTTP/2 that such a call needs are written here: settings, one request's headers, and data. The servers' windows are not
counted: a check is 40 bytes, and gRPC opens them again long before they are full.

A node sends to all its servers in the same moment; the nodes are spread evenly over the interval. Once a second, and at
the end, a line of JSON on standard output says what was sent and what came back. Orders come on standard input, a line
each: "interval SECONDS" changes the beat, "silence NODE" makes a node send nothing more, its connections stay open; the
answer is a line with the moment of its last check (CLOCK_MONOTONIC). It ends with its standard input.
"""

import argparse
import asyncio
import gc
import json
import random
import resource
import ssl
import statistics
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import uvloop

from gale.node import CHECKS_AN_ANSWER, as_asked
from gale.rpc.v1 import node_pb2 as pb

TICK_S = 0.01
RETRY_S = 1.0, 4.0
LATENCIES_MAX = 20_000

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
ACK, END_HEADERS, END_STREAM = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE = 4
WINDOW_MAX = (1 << 31) - 1
FRAME_HEAD, MESSAGE_HEAD = 9, 5


def address_of(number: int) -> str:
    """Of the node with this number, 1 to 65534."""
    return f"10.78.{number >> 8}.{number & 255}"


def name_of(number: int) -> str:
    return f"crowd-{number}"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header as HPACK writes it that uses no table."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def opening(authority: str, scheme: str) -> bytes:
    """All that is sent before the first check: windows as wide as can be, and the headers of the call, stream 1."""
    headers = {
        ":method": "POST",
        ":scheme": scheme,
        ":path": "/gale.v1.NodeService/Checks",
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",  # codespell:ignore te
    }
    block = b"".join(literal(name, value) for name, value in headers.items())
    settings = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW_MAX))
    window = frame(WINDOW, 0, 0, struct.pack(">I", WINDOW_MAX - 65_535))
    return PREFACE + settings + window + frame(HEADERS, END_HEADERS, 1, block)


def message(check: pb.Check) -> bytes:
    packed = check.SerializeToString()
    return frame(DATA, 0, 1, b"\0" + len(packed).to_bytes(4, "big") + packed)


class Tally:
    """What the crowd sent and got since the last line."""

    def __init__(self) -> None:
        self.checks = self.replies = self.lost = 0
        self.reply_s: list[float] = []
        self.last_lost = ""


class Conversation(asyncio.Protocol):
    """One node with one server."""

    def __init__(self, authority: str, scheme: str, tally: Tally) -> None:
        self._opening = opening(authority, scheme)
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._sent_s = 0.0
        self.reply = b""
        self.reason = ""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._opening)

    def connection_lost(self, reason: Exception | None) -> None:
        self._transport = None
        self.reason = self.reason or repr(reason)
        if not self.closed.done():
            self.closed.set_result(None)

    def check(self, message: bytes, now_s: float) -> None:
        if self._transport:
            self._transport.write(message)
            self._sent_s = now_s
            self._tally.checks += 1

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        unread = self._unread + data if self._unread else data
        begin = 0
        while begin + FRAME_HEAD <= len(unread):
            size = int.from_bytes(unread[begin : begin + 3], "big")
            end = begin + FRAME_HEAD + size
            if end > len(unread):
                break
            self._take(unread[begin + 3], unread[begin + 4], unread[begin + FRAME_HEAD : end])
            begin = end
        self._unread = unread[begin:]

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == DATA:
            self.reply = payload
            self._tally.replies += 1
            if len(self._tally.reply_s) < LATENCIES_MAX:
                self._tally.reply_s.append(time.monotonic() - self._sent_s)
        elif kind in (SETTINGS, PING) and not flags & ACK and self._transport:
            self._transport.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in (GOAWAY, RESET) or (kind == HEADERS and flags & END_STREAM):
            self.reason = self.reason or repr(payload)
            self.close()


class Node:
    def __init__(self, number: int, servers: list[str], reports_to: int) -> None:
        self.name, self.address = name_of(number), address_of(number)
        self.conversations: dict[str, Conversation] = {}
        self.silent = False
        self.last_s = 0.0
        check = pb.Check(node=self.name, weight=1, reports_to=reports_to, condition=pb.CONDITION_SERVING)
        self._messages = [message(as_asked(check, turn)) for turn in range(CHECKS_AN_ANSWER)]
        self._turn = number  # not all ask for their answers at once

    def beat(self) -> None:
        if not self.silent:
            self.last_s = time.monotonic()
            for conversation in self.conversations.values():
                conversation.check(self._messages[self._turn % CHECKS_AN_ANSWER], self.last_s)
            self._turn += 1


class Crowd:
    def __init__(self, given: argparse.Namespace) -> None:
        servers = given.servers.split(",")
        self.interval_s: float = given.interval
        self._certificates: Path | None = given.certificates
        self._tally = Tally()
        self.nodes = [
            Node(number, servers, given.reports_to) for number in range(given.first, given.first + given.nodes)
        ]
        self._tasks = [
            asyncio.create_task(self._keep_up(node, server, turn / given.connections_per_s))
            for turn, node in enumerate(self.nodes)
            for server in servers
        ]

    def _context(self, node: Node) -> ssl.SSLContext | None:
        if self._certificates is None:
            return None
        context = ssl.create_default_context(cafile=self._certificates / "ca.crt")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._certificates / f"{node.name}.crt", self._certificates / f"{node.name}.key")
        context.set_alpn_protocols(["h2"])
        return context

    async def _keep_up(self, node: Node, server: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        loop = asyncio.get_running_loop()
        host, _, port = server.rpartition(":")
        scheme = "https" if self._certificates else "http"
        while True:
            try:
                _, conversation = await loop.create_connection(
                    lambda: Conversation(server, scheme, self._tally),
                    host,
                    int(port),
                    ssl=self._context(node),
                    local_addr=(node.address, 0),
                )
            except OSError:
                await asyncio.sleep(random.uniform(*RETRY_S))
                continue
            node.conversations[server] = conversation
            await conversation.closed
            del node.conversations[server]
            self._tally.lost += 1
            self._tally.last_lost = f"{node.name} by {server}: {conversation.reason}"
            await asyncio.sleep(random.uniform(*RETRY_S))

    async def beat(self) -> None:
        """All nodes once an interval, spread evenly; what a late turn missed is made up for, never sent twice."""
        turn, done = time.monotonic(), 0
        while True:
            elapsed = (time.monotonic() - turn) / self.interval_s
            due = min(len(self.nodes), int(elapsed * len(self.nodes)))
            for node in self.nodes[done:due]:
                node.beat()
            done = due
            if done == len(self.nodes):
                turn, done = turn + self.interval_s, 0
            await asyncio.sleep(TICK_S)

    async def report(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            say(self.words())

    def words(self) -> dict[str, object]:
        tally, known = self._tally, [c for node in self.nodes for c in node.conversations.values()]
        standing: Counter[str] = Counter()
        for reply, count in Counter(conversation.reply for conversation in known).items():
            standing[phase(reply)] += count
        reply_s = sorted(tally.reply_s) or [0.0]
        words = {
            "at_s": time.monotonic(),
            "connections": len(known),
            "checks": tally.checks,
            "replies": tally.replies,
            "lost": tally.lost,
            "last_lost": tally.last_lost,
            "reply_p50_ms": round(1000 * statistics.median(reply_s), 2),
            "reply_p99_ms": round(1000 * reply_s[int(0.99 * (len(reply_s) - 1))], 2),
            "reply_most_ms": round(1000 * reply_s[-1], 2),
            "standing": dict(standing),
        }
        tally.checks = tally.replies = tally.lost = 0
        tally.reply_s.clear()
        return words

    def obey(self, order: str) -> None:
        match order.split():
            case ["interval", seconds]:
                self.interval_s = float(seconds)
            case ["silence", name]:
                node = next(node for node in self.nodes if node.name == name)
                node.silent = True
                say({"silent": name, "last_s": node.last_s})


def phase(reply: bytes) -> str:
    if not reply:
        return "unanswered"
    answer = pb.CheckReply.FromString(reply[MESSAGE_HEAD:])
    return f"refused: {answer.refusal}" if answer.refusal else answer.phase


def say(words: dict[str, object]) -> None:
    print(json.dumps(words), flush=True)


async def orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


async def run(given: argparse.Namespace) -> None:
    files = given.nodes * len(given.servers.split(",")) + 100
    hard = max(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(given)
    gc.disable()  # its pauses would be taken for the load balancers'
    tasks = [asyncio.create_task(crowd.beat()), asyncio.create_task(crowd.report())]
    reader = await orders()
    while line := await reader.readline():
        crowd.obey(line.decode())
    for task in tasks:
        task.cancel()


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="be many nodes")
    parser.add_argument("--servers", required=True, help="IP:PORT,IP:PORT,… of node_port")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1, help="number of the first node, for a second process")
    parser.add_argument("--interval", type=float, default=5 / 3, help="seconds between two checks of a node")
    parser.add_argument("--connections-per-s", type=float, default=400, help="to each server, at the start")
    parser.add_argument("--reports-to", type=int, default=3, help="how many load balancers a node says it checks into")
    parser.add_argument("--certificates", type=Path, help="ca.crt, and NODE.crt and NODE.key of each node: with TLS")
    uvloop.run(run(parser.parse_args(list(arguments) if arguments is not None else None)))


if __name__ == "__main__":
    main()
