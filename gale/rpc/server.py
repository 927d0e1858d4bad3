"""Listening: one gRPC server a port, so that what nodes reach and what operators reach stay apart.

A connection costs a stranger little and must cost us little: its handshake has to be done soon, one that nobody calls
on is closed, and a call that is not read on holds back its sender after a few kilobytes.
"""

import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import grpc

from gale.errors import HostError
from gale.log import Refusals
from gale.rpc.arrivals import Arrivals
from gale.rpc.auth import Doorkeeper
from gale.rpc.limits import Limits
from gale.tls import Credentials

GROUP = "gale"
"""Its members may use the socket, beside the user that gale-lb runs as and root."""

OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second gale-lb on the port is an error, not a rival for its connections
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.server_handshake_timeout_ms", 2_000),
    ("grpc.max_connection_idle_ms", 30_000),
    ("grpc.max_concurrent_streams", 32),  # on one connection
    ("grpc.enable_channelz", 0),  # nobody asks it, and its records are part of each connection's memory
    ("grpc.max_channel_trace_event_memory_per_node", 0),
    ("grpc.http2.bdp_probe", 0),  # a fast sender earns no larger buffer
    ("grpc.http2.lookahead_bytes", 16 * 1024),
)


async def listen(
    addresses: Iterable[str], limits: Limits, credentials: Credentials | None = None, refusals: Refusals | None = None
) -> grpc.aio.Server:
    """A server bound to "IP:PORT" addresses, or to "unix:PATH", not started yet. Raises HostError when one is taken.
    `refusals`: counts whom it turns away."""
    bounds = (
        ("grpc.max_allowed_incoming_connections", limits.connections),
        # gRPC cancels calls that wait beyond this; when all nodes come back at once, that would make them come again.
        ("grpc.server.max_pending_requests", limits.open_in_all),
        ("grpc.server.max_pending_requests_hard_limit", limits.open_in_all),
    )
    refusals = refusals or Refusals("connection refused")
    arrivals = Arrivals(refusals) if credentials else None
    server = grpc.aio.server(options=(*OPTIONS, *bounds), interceptors=(Doorkeeper(limits, arrivals, refusals),))
    for address in addresses:
        try:
            if credentials and arrivals:
                server.add_secure_port(address, _secure(credentials, arrivals))
            else:
                server.add_insecure_port(address)
        except RuntimeError as error:
            await server.stop(None)
            raise HostError(f"cannot listen on {address}: is another program using the port?") from error
    return server


def _secure(credentials: Credentials, arrivals: Arrivals) -> grpc.ServerCredentials:
    """gRPC asks at every handshake for a new configuration; it is given one when the files have changed."""
    given = credentials.pem()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        arrivals.arrived()
        if credentials.pem() is given:
            return None
        given = credentials.pem()
        return _configuration(given)

    return grpc.dynamic_ssl_server_credentials(_configuration(given), changed, require_client_authentication=True)


def _configuration(pem: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    ca, cert, key = pem
    return grpc.ssl_server_certificate_configuration([(key, cert)], ca)


async def listen_here(path: Path | None, limits: Limits, refusals: Refusals) -> list[grpc.aio.Server]:
    """A server at a socket on this machine, none without a path. Its owner and GROUP alone may use it, from its first
    moment on; nothing else is to be proved, for the kernel looks at who connects. Raises HostError."""
    if path is None:
        return []
    _make_room(path)
    before = os.umask(0o117)
    try:
        server = await listen([f"unix:{path}"], limits, None, refusals)
        _hand_to_group(path)
    except OSError as error:
        raise HostError(f"api.socket: {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    return [server]


def _hand_to_group(path: Path) -> None:
    """Raises OSError."""
    try:
        shutil.chown(path, group=GROUP)
    except LookupError:
        path.chmod(0o600)  # there is no such group: nobody but the owner


def _make_room(path: Path) -> None:
    """A socket that a gale-lb has left behind is in nobody's way. Raises HostError."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists() and not path.is_socket():
            raise HostError(f"api.socket: {path} is no socket: name a path where nothing is")
    except OSError as error:
        raise HostError(f"api.socket: {path}: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise HostError(f"api.socket: {path} is another program's, which answers: give each gale-lb a path of its own")
