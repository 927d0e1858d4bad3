"""Which network namespace this is."""

import socket

_SO_NETNS_COOKIE, _SIZE = 71, 8  # asm-generic/socket.h; the socket module has no name for it


def cookie() -> int:
    """Of the calling thread's: a number that no other network namespace has had since the machine was started."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _SIZE), "little")
