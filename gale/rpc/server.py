"""Listening: one gRPC server a port, so that what nodes reach and what operators reach stay apart."""

from collections.abc import Iterable

import grpc

from gale.errors import HostError

OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second gale-lb on the port is an error, not a rival for its connections
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
)


async def listen(addresses: Iterable[str]) -> grpc.aio.Server:
    """A server bound to "IP:PORT" addresses, not started yet. Raises HostError when one is taken."""
    server = grpc.aio.server(options=OPTIONS)
    for address in addresses:
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            raise HostError(f"cannot listen on {address}: is another program using the port?") from error
    return server
