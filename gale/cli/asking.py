"""What every question and order of gale-ctl has in common: whom it is put to, how long it waits, how often it is asked.

A verb is a coroutine that is given an Asking, and its own options, and gives an Answer:

    @node.command("list")
    @asks
    async def node_list(asking: Asking) -> Answer: ...

`asks` is for questions, which may be asked again and again; `orders` for what is told once; `stays` for what fills the
terminal.
"""

import asyncio
import functools
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import uvloop
from google.protobuf.message import Message

from gale.cli.failing import debug_option, one_line_errors, tell
from gale.cli.proving import PROOF, proving
from gale.cli.showing import BAD, Answer, output_option, show, with_options
from gale.errors import RemoteError
from gale.rpc.client import OperatorLink, Server, operator_link
from gale.rpc.v1 import api_pb2 as pb

SOCKET = Path("/run/gale/lb.sock")
WATCH_S = 2.0
_COMPLETE_WITHIN_S = 1.0

Part = Mapping[str, Any]
"""What one load balancer says: its "address", and an "error" if it says nothing else."""


class Asking:
    """The connection of one question, for as many readings as are made. `watched`: there will be more than one.
    `kept`: what a verb wants to remember from one reading to the next."""

    def __init__(self, link: OperatorLink, timeout_s: float, watched: bool = False, output: str = "json") -> None:
        self._link = link
        self._output = output
        self.timeout_s = timeout_s
        self.watched = watched
        self.kept: Any = None

    async def ask(self, method: str, request: Message) -> Any:
        """Any call of the management API. Raises RemoteError."""
        return await self._link.ask(method, request, self.timeout_s)

    async def cluster_status(self, strong: bool = False) -> dict[str, Any]:
        """Raises RemoteError."""
        return await self._link.cluster_status(self.timeout_s, strong)

    def tell(self, answer: Answer) -> None:
        """Show one of many answers, each below the last."""
        show(answer, self._output, again=self._output != "table")


Verb = Callable[..., Awaitable[Answer]]


def local() -> str:
    """The gale-lb of this machine: at its socket, or on loopback where there is none."""
    return f"unix:{SOCKET}" if SOCKET.is_socket() else "127.0.0.1:5555"


def host_and_port(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value.startswith("unix:/"):
        return value
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", host) or not is_port(port):
        raise click.BadParameter(f"{value!r}: write e.g. 192.168.1.2:5555 or unix:{SOCKET}")
    return value


def is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text) <= 65_535


def _connecting(timeout_s: float) -> Iterable[Callable[..., Any]]:
    yield click.option(
        "--server",
        default=local,
        show_default="this machine's",
        envvar="GALE_SERVER",
        show_envvar=True,
        callback=host_and_port,
        help=f"HOST:PORT of a load balancer's API, or unix:PATH of its socket; this machine's is unix:{SOCKET}.",
    )
    yield click.option(
        "--timeout", type=click.FloatRange(0.1), default=timeout_s, show_default=True, help="Seconds to wait."
    )
    yield from PROOF


watch_option = click.option(
    "--watch",
    type=click.FloatRange(0.1, 3_600),
    is_flag=False,
    flag_value=WATCH_S,
    metavar="[SECONDS]",
    help=f"Ask again every {WATCH_S:g} seconds, or every so many, until you stop it.",
)


def asks(verb: Verb, timeout_s: float = 3.0, watched: bool = True) -> Callable[..., None]:
    """Give a verb the options that every question has."""

    @functools.wraps(verb)
    def command(
        server: Server, output: str, timeout: float, debug: bool, watch: float | None = None, **options: Any
    ) -> None:
        def reading(asking: Asking) -> Awaitable[Answer]:
            return verb(asking, **options)

        try:
            answer = uvloop.run(_follow(reading, server, output, timeout, watch))
        except KeyboardInterrupt:
            if watch is None and not options.get("follow"):
                raise
            return  # it goes on until it is stopped
        if answer.bad:
            sys.exit(BAD)

    options = (output_option, *([watch_option] if watched else []), *_connecting(timeout_s), debug_option)
    return with_options(one_line_errors("gale-ctl")(proving(command)), options)


orders = partial(asks, watched=False)


def stays(verb: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Give a verb that shows what it asks by itself, until it is left, the options of its connection."""

    @functools.wraps(verb)
    def command(server: Server, timeout: float, debug: bool, **options: Any) -> None:
        async def staying() -> None:
            async with operator_link(server) as link:
                await verb(Asking(link, timeout, watched=True), **options)

        uvloop.run(staying())

    return with_options(one_line_errors("gale-ctl")(proving(command)), (*_connecting(3.0), debug_option))


async def _follow(
    reading: Callable[[Asking], Awaitable[Answer]], server: Server, output: str, timeout_s: float, watch_s: float | None
) -> Answer:
    """The answer; with `watch_s` it never ends, and goes on after what went wrong but the first time."""
    async with operator_link(server) as link:
        asking = Asking(link, timeout_s, watch_s is not None, output)
        answer = await reading(asking)
        show(answer, output, asking.watched)
        while watch_s is not None:
            await asyncio.sleep(watch_s)
            try:
                show(await reading(asking), output, again=True)
            except RemoteError as error:
                tell("gale-ctl", str(error), error.exit_code, output)
    return answer


def require_one(parts: Iterable[Part]) -> None:
    """Raise RemoteError when no load balancer gave an answer."""
    if all(part["error"] for part in parts):
        raise RemoteError("; ".join(f"{part['address']}: {part['error']}" for part in parts))


def unanswered(parts: Iterable[Part]) -> list[str]:
    """One line for each load balancer that gave no answer."""
    return [f"{part['address']}: {part['error']}" for part in parts if part["error"]]


def known(names: Callable[[Asking], Awaitable[Iterable[str]]]) -> Callable[..., list[str]]:
    """What a shell may complete: these names, as far as a load balancer says them at once."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        async def asked() -> Iterable[str]:
            async with operator_link(Server(context.params.get("server") or local())) as link:
                return await names(Asking(link, _COMPLETE_WITHIN_S))

        with suppress(Exception):  # the shell has no place for an error
            return [name for name in uvloop.run(asked()) if name.startswith(incomplete)]
        return []

    return complete


async def _nodes(asking: Asking) -> Iterable[str]:
    return [node["id"] for node in (await asking.cluster_status())["nodes"]]


async def _services(asking: Asking) -> Iterable[str]:
    return [each.name for each in (await asking.ask("GetServices", pb.GetServicesRequest())).services]


async def _load_balancers(asking: Asking) -> Iterable[str]:
    return [lb["address"].rpartition(":")[0] for lb in (await asking.cluster_status())["load_balancers"]]


known_nodes, known_services, known_load_balancers = map(known, (_nodes, _services, _load_balancers))
node_argument = click.argument("name", metavar="NODE", shell_complete=known_nodes)
