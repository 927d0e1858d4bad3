"""The configuration in force at a load balancer, in the keys of lb.toml and as text: to be shown and compared.

Nothing that is secret may be in here: the file with the key is not named, and what is new in lb.toml is seen by a test
that lists every key.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gale.config.reading import Duration, Table

LEFT_OUT = frozenset({"tls.key"})
SHARED = ("node_health.", "public_interface.clients_port", "public_interface.virtual_addresses", "forwarding.")
OWN_ALL_THE_SAME = frozenset({"forwarding.flows", "forwarding.learning_time"})
"""What must agree is told as core/shared.py puts it, by service."""


@dataclass(frozen=True, slots=True)
class EffectiveConfig:
    """
    shared, hash  what must agree
    own           what may differ
    serves        service -> the addresses, ports and protocols at which this load balancer serves it
    machine       what it runs on
    """

    shared: Mapping[str, str] = field(default_factory=dict)
    hash: str = ""
    own: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    serves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)


def own_keys(file: Table) -> dict[str, str]:
    """Of what may differ, as it is in force: defaults are filled in."""
    return {key: text for key, text in sorted(_keys(file)) if _is_own(key)}


def _is_own(key: str) -> bool:
    return key not in LEFT_OUT and (key in OWN_ALL_THE_SAME or not key.startswith(SHARED))


def _keys(file: Table) -> Iterator[tuple[str, str]]:
    for table in file.__struct_fields__:
        entries = getattr(file, table)
        if isinstance(entries, Table):
            for key in entries.__struct_fields__:
                if (value := getattr(entries, key)) is not None:
                    yield f"{table}.{key}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, Table):
        return ":".join(_text(part) for name in value.__struct_fields__ if (part := getattr(value, name)) is not None)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{int(value)}ms" if isinstance(value, Duration) else str(value)
