"""gale-ctl support-bundle: what a report of trouble needs, in one file.

What the load balancers say, and what this machine looks like. Much may be missing where there is trouble, so whatever
cannot be had is named in the bundle instead, and the rest is there all the same. Everything is bounded in time and
size.

Nothing secret is read: configurations come from the load balancers, which leave secrets out, and no file of this
machine is copied. What programs say goes through `without_keys` all the same.
"""

import asyncio
import io
import json
import os
import re
import shutil
import socket
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from gale.cli.asking import Asking, asks
from gale.cli.rates import with_rates
from gale.cli.showing import Answer
from gale.errors import HostError, RemoteError
from gale.machine import machine
from gale.rpc.plain import parts_plain, plain
from gale.rpc.v1 import api_pb2 as pb

COMMAND_S = 10.0
TEXT_MAX = 4 << 20
"""Bytes of what one command says: the end of it."""
BETWEEN_COUNTS_S = 1.0

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "interfaces.txt": ("ip", "-details", "-statistics", "address", "show"),
    "routes.txt": ("ip", "route", "show", "table", "all"),
    "routes6.txt": ("ip", "-6", "route", "show", "table", "all"),
    "rules.txt": ("ip", "rule", "show"),
    "neighbours.txt": ("ip", "-statistics", "neighbour", "show"),
    "qdiscs.txt": ("tc", "-statistics", "qdisc", "show"),
    "pins.txt": ("ls", "-lR", "/sys/fs/bpf/gale"),
    "programs.txt": ("bpftool", "prog", "show"),
    "maps.txt": ("bpftool", "map", "show"),
    "listening.txt": ("ss", "-Htunlp"),
    "units.txt": ("systemctl", "status", "--no-pager", "--lines=0", "gale-lb", "gale-node"),
    "journal.txt": ("journalctl", "--no-pager", "-o", "short-iso", "-n", "5000", "-u", "gale-lb", "-u", "gale-node"),
}

_BEGIN, _END = (rf"-----{word} [A-Z0-9 ]*PRIVATE KEY-----" for word in ("BEGIN", "END"))
_KEYS = (re.compile(rf"{_BEGIN}.*?(?:{_END}|\Z)", re.DOTALL), re.compile(rf"\A.*{_END}", re.DOTALL))
"""From its first line to its last, or to the end of the text; and one of which the beginning is cut off."""


@click.command("support-bundle")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it; must not be there yet.  [default: gale-support-HOST-TIME.tar.gz]",
)
@partial(asks, watched=False)
async def support_bundle(asking: Asking, file: Path | None) -> Answer:
    """Write all that a report of trouble needs into one file: what the load balancers say of status, counters,
    configuration, services and events; of this machine versions, interfaces, routes, programs and recent log lines.

    Run it on a load balancer, as root where you can. It holds no keys, but names and addresses of your machines: look
    into it before you send it to anybody."""
    name = f"gale-support-{socket.gethostname()}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    path = file or Path(f"{name}.tar.gz")
    texts, missing = await gathered(asking)
    try:
        written(path, name, texts, missing)
    except OSError as error:
        raise HostError(f"{path}: cannot be written: {error.strerror}") from error
    told = {"file": str(path), "contains": sorted(texts), "missing": missing}
    lines = [f"{each} is missing: {why}" for each, why in missing.items()]
    return Answer(told, lambda: [*lines, f"{path}: look into it before you send it: it names your machines"])


async def gathered(asking: Asking) -> tuple[dict[str, str], dict[str, str]]:
    """Name -> text of what there is, and name -> why of what there is not."""
    questions: Mapping[str, Callable[[Asking], Awaitable[Any]]] = {
        "status.json": lambda asking: asking.cluster_status(),
        "counters.json": counted,
        "configuration.json": partial(parts, "GetConfiguration", pb.GetConfigurationRequest()),
        "services.json": services,
        "events.json": events,
    }
    texts, missing = {"versions.json": as_json(machine())}, dict[str, str]()

    async def asked(name: str, question: Callable[[Asking], Awaitable[Any]]) -> None:
        try:
            texts[name] = as_json(await question(asking))
        except RemoteError as error:
            missing[name] = str(error)

    async def ran(name: str, words: tuple[str, ...]) -> None:
        try:
            texts[name] = without_keys(await said(words))
        except HostError as error:
            missing[name] = str(error)

    await asyncio.gather(*(asked(*each) for each in questions.items()), *(ran(*each) for each in COMMANDS.items()))
    return texts, dict(sorted(missing.items()))


def as_json(value: object) -> str:
    return without_keys(json.dumps(value, indent=2) + "\n")


async def parts(method: str, request: Any, asking: Asking) -> list[dict[str, Any]]:
    return parts_plain(await asking.ask(method, request))


async def counted(asking: Asking) -> list[dict[str, Any]]:
    """With what was added within a second."""
    before = await parts("GetCounters", pb.GetCountersRequest(), asking)
    await asyncio.sleep(BETWEEN_COUNTS_S)
    return with_rates(before, await parts("GetCounters", pb.GetCountersRequest(), asking))


async def services(asking: Asking) -> list[dict[str, Any]]:
    return [plain(each) for each in (await asking.ask("GetServices", pb.GetServicesRequest())).services]


async def events(asking: Asking) -> list[dict[str, Any]]:
    return [plain(each) for each in (await asking.ask("GetEvents", pb.GetEventsRequest())).events]


async def said(words: tuple[str, ...]) -> str:
    """What a command says, on both its outputs; the end of it when it is long. Raises HostError."""
    if shutil.which(words[0]) is None:
        raise HostError(f"{words[0]} is not installed")
    program = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        out, _ = await asyncio.wait_for(program.communicate(), COMMAND_S)
    except TimeoutError:
        program.kill()
        await program.wait()
        raise HostError(f"{' '.join(words)}: no end within {COMMAND_S:g} s") from None
    return f"$ {' '.join(words)}\n{out[-TEXT_MAX:].decode(errors='replace')}"


def without_keys(text: str) -> str:
    """Private keys are left out, which a log may have caught."""
    for key in _KEYS:
        text = key.sub("[a private key was here: left out]", text)
    return text


def written(path: Path, name: str, texts: Mapping[str, str], missing: Mapping[str, str]) -> None:
    """For its owner only. Raises OSError, also when the file is there."""
    readme = ["Made by gale-ctl support-bundle. It names machines, and holds no keys.", "", *sorted(texts)]
    readme += [f"{each}: missing: {why}" for each, why in missing.items()]
    with (
        os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out,
        tarfile.open(fileobj=out, mode="w:gz") as bundle,
    ):
        for each, text in {**texts, "README.txt": "\n".join(readme) + "\n"}.items():
            content = text.encode()
            entry = tarfile.TarInfo(f"{name}/{each}")
            entry.size, entry.mtime, entry.mode = len(content), int(datetime.now(UTC).timestamp()), 0o600
            bundle.addfile(entry, io.BytesIO(content))
