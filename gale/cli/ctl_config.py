"""gale-ctl and configurations: what is in force, where load balancers differ, and whether a file is right."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table

from gale.cli.asking import Asking, asks, require_one, unanswered
from gale.cli.checking import checked
from gale.cli.showing import Answer, tells
from gale.config import LbConfig, load_lb
from gale.errors import ConfigError
from gale.rpc.plain import parts_plain
from gale.rpc.v1 import api_pb2 as pb

Part = Mapping[str, Any]

ABSENT = "absent"
KINDS = {"shared": "must agree", "own": "may differ"}


@click.group()
def config() -> None:
    """The load balancers' configurations."""


@config.command("show")
@click.argument("load_balancer", required=False)
@asks
async def config_show(asking: Asking, load_balancer: str | None) -> Answer:
    """The configuration in force, of all load balancers or of one (its address), as it was when its gale-lb started.

    Defaults are filled in; what is secret is left out."""
    parts = await read(asking)
    if load_balancer:
        parts = [part for part in parts if load_balancer in (part["address"], part["address"].rpartition(":")[0])]
        if not parts:
            raise ConfigError(f"{load_balancer}: no load balancer has this address: gale-ctl cluster status has them")
        require_one(parts)
    rows = [(kind, key) for kind in KINDS for key in sorted({key for part in parts for key in part[kind]})]
    return Answer({"load_balancers": parts}, lambda: shown(parts, rows))


@config.command("diff")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@asks
async def config_diff(asking: Asking, file: Path | None) -> Answer:
    """The keys in which load balancers differ from each other, or from FILE, which is read here.

    Ends with code 1 when one differs that must agree, or when a load balancer does not answer."""
    parts = await read(asking)
    if file:
        parts.append(of_file(str(file), load_lb(file)))
    answered = [part for part in parts if not part["error"]]
    found = [(kind, key) for kind in KINDS for key in differing(answered, kind)]
    plain = [
        {
            "key": key,
            "must_agree": kind == "shared",
            "values": {part["address"]: part[kind].get(key) for part in answered},
        }
        for kind, key in found
    ]
    silent = unanswered(parts)

    def lines() -> Iterable[RenderableType]:
        if found:
            yield from shown(parts, found)
        else:
            yield from silent
            yield "no key differs"

    bad = bool(silent) or any(kind == "shared" for kind, _ in found)
    return Answer({"differences": plain, "errors": silent}, lines, bad)


@config.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@tells
def config_check(file: Path) -> Answer:
    """Whether a file is right for gale-lb, as gale-lb --check says. Ends with code 2 when it is not."""
    settings = checked(file)
    right = f"{file}: right; hash of what all load balancers must share: {settings.shared.hash}"
    plain = {"file": str(file), "hash": settings.shared.hash, "warnings": list(settings.warnings)}
    return Answer(plain, lambda: [right, *(f"{file}: warning: {warning}" for warning in settings.warnings)])


async def read(asking: Asking) -> list[dict[str, Any]]:
    """Raises RemoteError when nobody tells."""
    parts = parts_plain(await asking.ask("GetConfiguration", pb.GetConfigurationRequest()))
    require_one(parts)
    for part in parts:
        part["serves"] = {service: places["places"] for service, places in part["serves"].items()}
    return parts


def of_file(name: str, settings: LbConfig) -> dict[str, Any]:
    return {"address": name, "error": "", "shared": dict(settings.shared.canonical()), "own": dict(settings.own)}


def differing(parts: Iterable[Part], kind: str) -> list[str]:
    """Keys that do not have the same value everywhere."""
    values: dict[str, list[str]] = {}
    told = [part[kind] for part in parts]
    for key in sorted({key for keys in told for key in keys}):
        values[key] = [keys.get(key, ABSENT) for keys in told]
    return [key for key, each in values.items() if len(set(each)) > 1]


def shown(parts: Iterable[Part], rows: Iterable[tuple[str, str]]) -> Iterable[RenderableType]:
    """`rows`: kind and key of each."""
    answered = [part for part in parts if not part["error"]]
    table = Table("key", "", *(Column(part["address"], overflow="fold") for part in answered), box=None)
    for kind, key in rows:
        values = [part[kind].get(key, ABSENT) for part in answered]
        style = "bold red" if kind == "shared" and len(set(values)) > 1 else ""
        table.add_row(escape(key), KINDS[kind], *map(escape, values), style=style)
    yield table
    for part in answered:
        yield from (f"{part['address']}: warning: {warning}" for warning in part.get("warnings", ()))
    yield from unanswered(parts)
