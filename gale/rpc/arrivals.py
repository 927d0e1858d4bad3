"""Connections to a port with TLS on which nobody ever calls: most were refused in the handshake.

gRPC does not tell of handshakes that fail. But it asks for our certificate once a connection, and each call says from
which connection it is. A connection that is not called on within a few seconds has been refused, or was not worth more.
"""

import asyncio

from gale.log import Refusals

SETTLED_S = 3.0  # a handshake may take two
FORGOTTEN_S = 60.0  # a connection without a call is closed earlier, and its port is not taken again earlier
CALLERS_KEPT = 20_000


class Arrivals:
    """Belongs to the running loop."""

    def __init__(self, refusals: Refusals) -> None:
        self._loop = asyncio.get_running_loop()
        self._refusals = refusals
        self._new = self._old = 0  # connections without a call: since the last weighing, and before it
        self._weighing: asyncio.TimerHandle | None = None
        self._callers: dict[str, float] = {}

    def arrived(self) -> None:
        """A connection begins. May be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived)

    def called(self, peer: str) -> None:
        """A call, from the connection that grpc names so."""
        now_s = self._loop.time()
        if peer not in self._callers:
            if self._old:
                self._old -= 1
            elif self._new:
                self._new -= 1
            if len(self._callers) >= CALLERS_KEPT:
                self._callers = {p: at_s for p, at_s in self._callers.items() if now_s - at_s < FORGOTTEN_S}
        self._callers[peer] = now_s

    def _arrived(self) -> None:
        self._new += 1
        if self._weighing is None:
            self._weighing = self._loop.call_later(SETTLED_S, self._weigh)

    def _weigh(self) -> None:
        if self._old:
            self._refusals.note(self._old, reason="no TLS 1.3 with a certificate under our ca, or nothing asked")
        self._old, self._new = self._new, 0
        self._weighing = self._loop.call_later(SETTLED_S, self._weigh) if self._old else None
