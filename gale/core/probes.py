"""The ways in which a node may ask whether its service is well; gale/probe.py asks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """The service takes connections on this port of loopback."""

    port: int


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """The service answers a GET of this URL with a status below 400."""

    url: str


@dataclass(frozen=True, slots=True)
class CommandProbe:
    """The command ends with code 0."""

    command: tuple[str, ...]


Probe = TcpProbe | HttpProbe | CommandProbe
