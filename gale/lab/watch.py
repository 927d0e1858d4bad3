"""The cluster as its load balancers describe it, seen from outside: one JSON line per question.

    python -m gale.lab.watch --servers 10.77.2.10:5555,10.77.2.11:5555 --interval 0.1

Each server is asked on its own, so that one that is silent delays no other. A line is {"at_s": monotonic seconds,
"server": …, "status": what `gale-ctl cluster status -o json` prints or null, "error": text or null}. With `--local`
each is asked for itself alone, which is answered at once whatever the others do, and "status" has the fields LOCAL.
It ends on SIGTERM, after `--count` questions to each server, and when its standard input ends, as it does when its
parent dies. GALE_CA, GALE_CERT and GALE_KEY name the certificate to ask with, as for gale-ctl.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from gale.errors import GaleError
from gale.lab.certificates import own_credentials
from gale.rpc.client import Server, fetch_cluster_status, fetch_local_status

Ask = Callable[[Server, float], Awaitable[dict[str, Any]]]

TIMEOUT_S = 0.5
LOCAL = ("address", "leader", "term", "quorum", "applied_index", "generation", "config_hash")


async def local(server: Server, timeout_s: float) -> dict[str, Any]:
    status = await fetch_local_status(server, timeout_s)
    return {**{field: getattr(status, field) for field in LOCAL}, "leader": status.leader or None}


async def follow(server: Server, ask: Ask, interval_s: float, count: int) -> None:
    """Ask one server again and again; `count` 0 is without end."""
    asked = 0
    while not count or asked < count:
        begin = time.monotonic()
        status, error = None, None
        try:
            status = await ask(server, TIMEOUT_S)
        except GaleError as failure:
            error = str(failure)
        line = {"at_s": round(time.monotonic(), 4), "server": server.address, "status": status, "error": error}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        asked += 1
        await asyncio.sleep(max(0.0, begin + interval_s - time.monotonic()))


async def watch(servers: list[Server], ask: Ask, interval_s: float, count: int) -> None:
    loop = asyncio.get_running_loop()
    questions = asyncio.gather(*(follow(server, ask, interval_s, count) for server in servers))
    loop.add_signal_handler(signal.SIGTERM, questions.cancel)
    loop.add_signal_handler(signal.SIGINT, questions.cancel)
    loop.add_reader(sys.stdin.fileno(), _cancel_at_eof, questions)
    try:
        await questions
    except asyncio.CancelledError:
        return


def _cancel_at_eof(questions: "asyncio.Future[list[None]]") -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        questions.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description="print the cluster's state again and again")
    parser.add_argument("--servers", required=True, help="IP:PORT,IP:PORT,…")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between questions to one server")
    parser.add_argument("--count", type=int, default=0, help="questions to each server; 0: until it is ended")
    parser.add_argument("--local", action="store_true", help="ask each for itself alone")
    given = parser.parse_args()
    ask = local if given.local else fetch_cluster_status
    credentials = own_credentials()
    servers = [Server(address, credentials) for address in given.servers.split(",")]
    uvloop.run(watch(servers, ask, given.interval, given.count))


if __name__ == "__main__":
    main()
