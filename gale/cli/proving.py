"""The options by which an operator proves who asks: --ca, --cert and --key."""

import functools
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import click

from gale.errors import ConfigError
from gale.rpc.client import Server
from gale.tls import Credentials


def _file(name: str, variable: str, words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, type=click.Path(path_type=Path), envvar=variable, show_envvar=True, help=words)


# The options that every question and every order has.
PROOF = (
    _file("--ca", "GALE_CA", "The authority that load balancers are to prove themselves by."),
    _file("--cert", "GALE_CERT", "Your certificate."),
    _file("--key", "GALE_KEY", "Its key."),
)


def proving(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the Server that its options --server, --ca, --cert and --key make together."""

    @functools.wraps(command)
    def with_server(*, server: str, ca: Path | None, cert: Path | None, key: Path | None, **options: object) -> None:
        if ca and cert and key:
            credentials = Credentials(ca, cert, key)
        elif ca or cert or key:
            raise ConfigError("--ca, --cert and --key (or GALE_CA, GALE_CERT and GALE_KEY) go together: give all three")
        else:
            credentials = None
        command(server=Server(server, credentials, user()), **options)

    return with_server


def user() -> str:
    """Who asks: also behind sudo."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"
