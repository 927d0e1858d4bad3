"""What is answered at which path, and where is listened.

/         the page for people, of the files in static/; it asks /page.json for what it shows, and /order to drain a node
/metrics   for Prometheus; /metrics?nodes=no leaves out what there is of each node
/healthz   200 as long as the loop turns: what a supervisor asks that would start gale-lb anew
/readyz    200 while clients' traffic may be sent here, else 503 and the reasons: what a router asks

All of it may be read without rights; for orders see orders.py. On loopback it is plain HTTP, also where there are
certificates: whoever is on
this machine, or came through its ssh, needs none to read.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from gale.dataplane.abi import verdicts
from gale.door import Door
from gale.errors import HostError
from gale.log import Refusals
from gale.ports import Operator
from gale.tls import Credentials
from gale.web.exposition import KIND, exposition
from gale.web.families import Seen, measured
from gale.web.health import unready
from gale.web.http import BOUNDS, Answer, Asked, Http, Request
from gale.web.orders import JSON, may_order, take
from gale.web.page import Moment, Picture, Wanted

LOOPBACK = "127.0.0.1"
FRESH_S = 1.0
READS = ("GET", "HEAD")
ORDER = "/order"
STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

T = TypeVar("T")


class Shared(Generic[T]):
    """One answer for all who ask within a second, and one in the making for all who wait: what is dear to make is made
    once a second at most, whoever asks how often."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make = make
        self._made: asyncio.Future[T] | None = None
        self._begun_s = float("-inf")

    async def get(self) -> T:
        now_s = asyncio.get_running_loop().time()
        if self._made is None or (self._made.done() and now_s - self._begun_s >= FRESH_S):
            self._begun_s, self._made = now_s, asyncio.ensure_future(self._make())
        return await asyncio.shield(self._made)


class Site:
    """Of a load balancer. `refusals`: by port; `credentials`: its own, where there is TLS."""

    def __init__(
        self, operator: Operator, refusals: Mapping[str, Refusals], credentials: Credentials | None = None
    ) -> None:
        self._operator = operator
        self._refusals = refusals
        self._credentials = credentials
        self._actions = {verdict.name: verdict.action.value for verdict in verdicts()}
        self._metrics = Shared(lambda: self._exposition(nodes=True))
        self._metrics_without_nodes = Shared(lambda: self._exposition(nodes=False))
        self._moment = Shared(self._look)
        self._picture = Picture()
        self._files = {path: Answer((STATIC / name).read_text(), kind=kind) for path, (name, kind) in FILES.items()}
        self._paths: Mapping[str, Asked] = {
            **dict.fromkeys(FILES, self._tell_file),
            "/page.json": self._tell_page,
            "/metrics": self._tell_metrics,
            "/healthz": self._tell_health,
            "/readyz": self._tell_readiness,
        }

    async def answer(self, request: Request) -> Answer:
        if request.path == ORDER:
            if request.method != "POST":
                return Answer("orders are given: POST\n", 405, headers={"allow": "POST"})
            return await take(request, self._operator)
        handler = self._paths.get(request.path)
        if handler is None:
            return Answer(f"nothing is at this path; there are {', '.join(self._paths)}\n", 404)
        if request.method not in READS:
            return Answer("this can only be read: GET\n", 405, headers={"allow": ", ".join(READS)})
        return await handler(request)

    async def _tell_file(self, request: Request) -> Answer:
        return self._files[request.path]

    async def _tell_page(self, request: Request) -> Answer:
        drawn = await self._picture.draw(await self._moment.get(), Wanted.of(request.query))
        drawn["may_order"] = may_order(request.who)
        drawn["who"] = str(request.who or "")
        return Answer([msgspec.json.encode(drawn)], kind=JSON)

    async def _look(self) -> Moment:
        counters = await self._operator.counters()
        now_s = asyncio.get_running_loop().time()
        return Moment(now_s, self._operator.state, self._operator.local_status(), counters)

    async def _tell_metrics(self, request: Request) -> Answer:
        match request.query.get("nodes", "yes"):
            case "yes":
                return Answer(await self._metrics.get(), kind=KIND)
            case "no":
                return Answer(await self._metrics_without_nodes.get(), kind=KIND)
            case _:
                return Answer("nodes: yes or no\n", 400)

    async def _exposition(self, nodes: bool) -> list[bytes]:
        counters, local, state = await self._operator.counters(), self._operator.local_status(), self._operator.state
        ends = self._credentials.valid_until.timestamp() if self._credentials else None
        refused = {port: refusals.count for port, refusals in self._refusals.items()}
        ready = not unready(local, state)
        return await exposition(measured(Seen(state, local, counters, self._actions, refused, ready, ends), nodes))

    async def _tell_health(self, request: Request) -> Answer:
        return Answer("ok\n")

    async def _tell_readiness(self, request: Request) -> Answer:
        local = self._operator.local_status()
        if reasons := unready(local, self._operator.state):
            return Answer("".join(f"{reason}\n" for reason in reasons), 503)
        return Answer("ready\n" if local.consensus.quorum else "ready, without a quorum: forwarding goes on\n")


def places(address: str, private: str) -> tuple[str, ...]:
    """Where `web.address` means to listen, on a machine with this private address."""
    if address == "off":
        return ()
    if address == "loopback":
        return (LOOPBACK,)
    return tuple(dict.fromkeys((LOOPBACK, private if address == "private" else address)))


def doors(at: Iterable[str], port: int, refusals: Refusals, credentials: Credentials | None) -> Iterator[Door]:
    """One for each of the addresses, of which loopback's has no TLS. Raises HostError."""
    for address in at:
        try:
            listener = socket.create_server((address, port), backlog=128)
        except OSError as error:
            raise HostError(f"web.address: cannot listen on {address}:{port}: {error.strerror}") from error
        context = credentials.visitors_context if credentials and address != LOOPBACK else None
        yield Door(listener, BOUNDS, refusals, context)


def open_doors(doors: Iterable[Door], asked: Asked) -> None:
    for door in doors:
        door.open(Http(called_by_address(asked) if door.address == LOOPBACK else asked).serve)


def called_by_address(asked: Asked) -> Asked:
    """For loopback: another site's name that leads there is how that site would read what is shown, through the browser
    of somebody on this machine."""

    async def answer(request: Request) -> Answer:
        if named_locally(request.headers.get("host", "")):
            return await asked(request)
        return Answer("this is loopback: it is called 127.0.0.1 or localhost\n", 421)

    return answer


def named_locally(host: str) -> bool:
    """`host`: as a request says it, perhaps with a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
