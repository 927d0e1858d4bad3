"""Where a program of gale is listened to over HTTP, and what holds for all that can only be read there.

On loopback it is plain HTTP, also where there are certificates: whoever is on this machine, or came through its ssh,
needs none to read.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from gale.door import Door
from gale.errors import HostError
from gale.log import Refusals
from gale.tls import Credentials
from gale.web.http import BOUNDS, Answer, Asked, Http, Request

LOOPBACK = "127.0.0.1"
FRESH_S = 1.0
READS = ("GET", "HEAD")

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


async def read(request: Request, paths: Mapping[str, Asked]) -> Answer:
    """What is at the path, for those who only read."""
    handler = paths.get(request.path)
    if handler is None:
        return Answer(f"nothing is at this path; there are {', '.join(paths)}\n", 404)
    if request.method not in READS:
        return Answer("this can only be read: GET\n", 405, headers={"allow": ", ".join(READS)})
    return await handler(request)


async def alive(request: Request) -> Answer:
    """/healthz: whoever answers is."""
    return Answer("ok\n")


def readiness(reasons: Sequence[str], ready: str) -> Answer:
    """/readyz: why not, a line each; `ready`: the one line when there is nothing against it."""
    if reasons:
        return Answer("".join(f"{reason}\n" for reason in reasons), 503)
    return Answer(f"{ready}\n")


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
