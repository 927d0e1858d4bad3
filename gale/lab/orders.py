"""Operators who drain and undrain nodes again and again, and say what they were told: one JSON line per order.

    python -m gale.lab.orders --servers 10.77.2.10:5555,… --nodes node-1,node-2 --clients 8 --interval 0.01

Each client gives one order after the other, to a server and about a node that are drawn by chance (`--seed`), and now
and then asks instead how a node stands. A line is {"client": number, "began_s" and "ended_s": monotonic seconds,
"server": …, "node": …, "kind": "drain", "undrain" or "read", "drained": what a read found or null, "error": null when
it was done, else why it is not known to be}. It ends on SIGTERM, after `--count` orders of each client, and when its
standard input ends, as it does when its parent dies; what is under way then is waited for. GALE_CA, GALE_CERT and
GALE_KEY name the certificate to order with, as for gale-ctl.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass

import uvloop

from gale.errors import GaleError
from gale.lab.certificates import own_credentials
from gale.rpc.client import OperatorLink, Server, operator_link

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    client: int
    began_s: float
    ended_s: float
    server: str
    node: str
    kind: str
    drained: bool | None
    error: str | None

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


class Client:
    def __init__(self, number: int, given: argparse.Namespace) -> None:
        self._number = number
        self._servers = given.servers.split(",")
        self._nodes = given.nodes.split(",")
        self._kinds = given.kinds.split(",")
        self._reads = given.reads
        self._keeps = given.keep
        self._credentials = own_credentials()
        self._kept: dict[str, OperatorLink] = {}
        self._stack = AsyncExitStack()
        self._chance = random.Random(given.seed * 1_000 + number)

    async def order(self) -> Order:
        server, node = self._chance.choice(self._servers), self._chance.choice(self._nodes)
        kind = "read" if self._chance.random() < self._reads else self._chance.choice(self._kinds)
        began_s = time.monotonic()
        drained, error = None, None
        try:
            async with self._link(server) as link:
                if kind == "read":
                    drained = await is_drained(link, node)
                else:
                    await link.set_drain(node, kind == "drain", TIMEOUT_S)
        except GaleError as failure:
            error = str(failure)
        return Order(self._number, began_s, time.monotonic(), server, node, kind, drained, error)

    @asynccontextmanager
    async def _link(self, server: str) -> AsyncIterator[OperatorLink]:
        if self._keeps:
            if server not in self._kept:
                self._kept[server] = await self._stack.enter_async_context(
                    operator_link(Server(server, self._credentials))
                )
            yield self._kept[server]
            return
        async with operator_link(Server(server, self._credentials)) as link:
            yield link

    async def close(self) -> None:
        await self._stack.aclose()


async def is_drained(link: OperatorLink, node: str) -> bool:
    """Through the log: what was committed when the question arrived is in the answer."""
    status = await link.cluster_status(TIMEOUT_S, strong=True)
    return any(entry["id"] == node and entry["drained"] for entry in status["nodes"])


async def give(client: Client, interval_s: float, count: int, ending: asyncio.Event) -> None:
    given = 0
    while not ending.is_set() and (not count or given < count):
        order = await client.order()
        sys.stdout.write(json.dumps(asdict(order)) + "\n")
        sys.stdout.flush()
        given += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), max(0.0, order.began_s + interval_s - time.monotonic()))
    await client.close()


async def run(clients: list[Client], interval_s: float, count: int) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_reader(sys.stdin.fileno(), _end_at_eof, ending)
    await asyncio.gather(*(give(client, interval_s, count, ending) for client in clients))


def _end_at_eof(ending: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        ending.set()


def main() -> None:
    parser = argparse.ArgumentParser(description="drain and undrain nodes again and again")
    parser.add_argument("--servers", required=True, help="IP:PORT,IP:PORT,…")
    parser.add_argument("--nodes", required=True, help="names of nodes, with commas")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--interval", type=float, default=0.02, help="seconds from a client's order to its next")
    parser.add_argument("--count", type=int, default=0, help="orders of each client; 0: until it is ended")
    parser.add_argument("--keep", action="store_true", help="keep connections from one order to the next")
    parser.add_argument("--kinds", default="drain,undrain", help="what is ordered")
    parser.add_argument("--reads", type=float, default=0.0, help="share of questions among the orders")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    uvloop.run(run([Client(number, given) for number in range(given.clients)], given.interval, given.count))


if __name__ == "__main__":
    main()
