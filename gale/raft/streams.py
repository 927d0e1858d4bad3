"""What the wire between load balancers needs of a network: TCP and UDP in production, a seeded one in simulation."""

from collections.abc import Awaitable, Callable
from typing import Protocol


class Stream(Protocol):
    """One connection, bytes in order.

    source    the IP address at the other end
    identity  the load balancer that the peer's certificate names, by its IP address; None where there is no TLS
    """

    @property
    def source(self) -> str: ...

    @property
    def identity(self) -> str | None: ...

    @property
    def unsent(self) -> int:
        """Bytes that were written and have not left yet."""
        ...

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes. Raises OSError or asyncio.IncompleteReadError once the connection has ended."""
        ...

    def write(self, content: bytes) -> None:
        """Send, in order; on a connection that has ended it does nothing."""
        ...

    def abort(self) -> None:
        """End it at once; `read` at both ends raises."""
        ...


class Streams(Protocol):
    """Where connections and datagrams come from. A connection is handed on only when its source, and with TLS its
    certificate, is right."""

    async def serve(self, accepted: Callable[[Stream], Awaitable[None]], heard: Callable[[str, bytes], None]) -> None:
        """Begin to listen; `accepted` runs once per connection, each in a task of its own. `heard` is called with each
        datagram and the address, "IP:PORT", that it seems to be from."""
        ...

    async def dial(self, address: str) -> Stream:
        """Connect to "IP:PORT". Raises OSError or TimeoutError."""
        ...

    def send(self, address: str, datagram: bytes) -> None:
        """To a load balancer. It may be lost, or arrive twice, and nobody is told."""
        ...

    def close(self) -> None:
        """Listen no more, and end every connection."""
        ...
