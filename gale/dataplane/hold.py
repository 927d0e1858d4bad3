"""One gale-lb to an interface: whoever runs holds a name in the network namespace, which ends with its process."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from gale.errors import HostError


@contextmanager
def holding(*interfaces: str) -> Iterator[None]:
    """Be the only gale-lb on these. Raises HostError."""
    held = []
    try:
        for interface in dict.fromkeys(interfaces):
            hold = _socket()
            held.append(hold)
            try:
                hold.bind(_name(interface))
            except OSError as error:
                raise HostError(f"{interface}: another gale-lb runs on this interface: stop it first") from error
        yield
    finally:
        for hold in held:
            hold.close()


def is_held(interface: str) -> bool:
    with _socket() as asking:
        return asking.connect_ex(_name(interface)) == 0


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _name(interface: str) -> str:
    return f"\0gale-lb:{interface}"
