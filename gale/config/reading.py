"""TOML into structures, and the words of a refusal: what lb.toml and node.toml have in common."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomli

from gale.errors import ConfigError

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def in_ms(text: str) -> int | None:
    """A time as people write it, such as "500ms", "5s", "5m", "1h"; None when it is none."""
    match = re.fullmatch(r"(\d{1,9})(ms|s|m|h)", text)
    return int(match[1]) * _UNITS_MS[match[2]] if match else None


class Duration(int):
    """Milliseconds, written as text such as "500ms", "5s", "5m", "1h"."""


class Address(str):
    """An IPv4 address in dotted form."""


class ServiceAddress(str):
    """An address clients connect to: IPv4 in dotted form, or IPv6 in its shortest form."""


class WebAddress(str):
    """Where a program shows itself over HTTP: "off", "loopback", "private", or an IPv4 address of this machine."""


Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, msgspec.Meta(pattern=_NAME_PATTERN)]
_NAME = re.compile(_NAME_PATTERN)
SERVICES_MAX = 64
"""Services that one node may name."""

WEB_WORDS = ("off", "loopback", "private")
Interface = Annotated[str, msgspec.Meta(min_length=1, max_length=15)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class TlsFiles(Table, frozen=True):
    """[tls]: the authority, this program's certificate and its key, as PEM files."""

    ca: Path
    cert: Path
    key: Path


def is_name(text: str) -> bool:
    """Whether a node, a service or an operator may be called so."""
    return _NAME.fullmatch(text) is not None


def read(path: Path, into: type[Any]) -> Any:
    """The file as an `into`. Raises ConfigError."""
    try:
        values = tomli.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        return msgspec.convert(values, into, dec_hook=_decode)
    except msgspec.ValidationError as error:
        rule, _, key = str(error).partition(" - at `$.")
        raise ConfigError(_refusal(path, key.rstrip("`"), values, rule)) from error


def _decode(kind: type[Any], value: Any) -> Any:
    if kind is Duration:
        told_ms = in_ms(value) if isinstance(value, str) else None
        if told_ms is None:
            raise ValueError('not a duration; write e.g. "5s" or "500ms"')
        return Duration(told_ms)
    if kind is Address:
        try:
            return Address(ipaddress.IPv4Address(value))
        except ValueError:
            raise ValueError('not an IPv4 address; write e.g. "192.168.1.2"') from None
    if kind is WebAddress:
        return WebAddress(_of_web(value))
    if kind is ServiceAddress:
        return ServiceAddress(_for_clients(value))
    if kind is Path:
        if not isinstance(value, str) or not value:
            raise ValueError('not a path; write e.g. "/etc/gale/tls/ca.crt"')
        return Path(value)
    raise NotImplementedError(kind)


def _of_web(value: Any) -> str:
    if value in WEB_WORDS:
        return str(value)
    try:
        address = ipaddress.IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        address = ipaddress.IPv4Address(0)
    if address.is_unspecified or address.is_multicast:
        words = ", ".join(f'"{word}"' for word in WEB_WORDS)
        raise ValueError(f'must be {words}, or one IPv4 address of this machine, e.g. "192.168.1.2"')
    return str(address)


def _for_clients(value: Any) -> str:
    try:
        address = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError('not an IP address; write e.g. "203.0.113.10" or "2001:db8::10"') from None
    if address.version == 6 and (address.ipv4_mapped or address.scope_id):
        raise ValueError("an IPv6 address without a zone, that is no IPv4 address in disguise, is needed")
    if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local:
        raise ValueError("clients cannot connect to such an address through a load balancer")
    return str(address)


def _refusal(path: Path, key: str, values: Any, rule: str) -> str:
    """The library's words in an operator's order. An unknown or a missing key is told as a key of its own."""
    named = re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", rule)
    if named:
        full = ".".join(part for part in (key, named[2]) if part)
        return f"{path}: {full}: {'unknown key' if 'unknown' in named[1] else 'missing'}"
    value = values
    for part in re.findall(r"[^.\[\]]+", key):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return f"{path}: {key} = {_as_toml(value)}: {rule[:1].lower()}{rule[1:]}"


def refuse_unless(holds: bool, path: Path, key: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{path}: {key} = {_as_toml(value)}: {rule}")


def _as_toml(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=lambda own: str(own) if isinstance(own, str) else int(own)).decode()
