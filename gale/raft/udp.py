"""Datagrams between load balancers, on the UDP port of the same number as the streams'.

There is a socket for each peer, connected to it: so the kernel drops what comes from anybody else.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

from gale.errors import HostError

MOST = 64  # bytes of a datagram, and datagrams of a peer in one turn of the loop


class Datagrams:
    """`me` and `peers`: addresses "IP:PORT". HostError when the port cannot be had."""

    def __init__(self, me: str, peers: Iterable[str]) -> None:
        self._sockets: dict[str, socket.socket] = {}
        try:
            for peer in peers:
                self._sockets[peer] = link = socket.socket(type=socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                link.bind(_split(me))
                link.connect(_split(peer))
        except OSError as error:
            self.close()
            raise HostError(f"Raft cannot have the UDP port of {me}: {error.strerror}") from error

    def serve(self, heard: Callable[[str, bytes], None]) -> None:
        """`heard` is called with a peer's address and what it sent."""
        for peer, link in self._sockets.items():
            asyncio.get_running_loop().add_reader(link, _receive, link, peer, heard)

    def send(self, peer: str, datagram: bytes) -> None:
        """What cannot be sent is lost, as on the way."""
        with suppress(OSError):
            self._sockets[peer].send(datagram)

    def close(self) -> None:
        for link in self._sockets.values():
            with suppress(RuntimeError):  # there may be no loop any more
                asyncio.get_running_loop().remove_reader(link)
            link.close()
        self._sockets.clear()


def _receive(link: socket.socket, peer: str, heard: Callable[[str, bytes], None]) -> None:
    with suppress(OSError):  # nothing is left, or the kernel says that an earlier one met no socket
        for _ in range(MOST):
            heard(peer, link.recv(MOST))


def _split(address: str) -> tuple[str, int]:
    ip, _, port = address.rpartition(":")
    return ip, int(port)
