"""What the service manager is told, in systemd's words (sd_notify): that gale is ready, how it is, that its loop turns.

    start ──EXTEND_TIMEOUT_USEC, while the loop turns──> READY=1 ──WATCHDOG=1, STATUS=──> STOPPING=1
                                                            └── RELOADING=1, READY=1 ──┘

A start may take as long as it must, for a load balancer waits for a quorum and a node for a load balancer; so not a
clock ends it, but a loop that does not turn: nothing extends its time then. Once ready the watchdog looks at the same.
The beat comes from the task that does the work (`turned`), not from a timer beside it: a loop that turns while nothing
is decided any more is stuck as well.

Messages are datagrams to a socket that the environment names. Without one all is said to nobody, and costs nothing.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

PAUSE_S = 1.0
EXTEND_S = 30  # a start is given so much more time with each turn of the loop


@dataclass(frozen=True, slots=True)
class Standing:
    """`ready`: gale does what it was started for; that it once did is enough. `status`: one line for operators."""

    ready: bool
    status: str


class Supervisor:
    """`address`: of the manager's socket; "@" begins a name in no file system. `watchdog_s`: a beat is due in that."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._pause_s = min(PAUSE_S, watchdog_s / 3) if watchdog_s else PAUSE_S
        self._ready = False
        self._status = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Supervisor":
        """As the manager has told this process; a watchdog that is another process's does not count."""
        usec = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_s = int(usec) / 1e6 if usec.isdecimal() and mine else None
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog_s)

    async def report(self, turned: Callable[[], Awaitable[None]], look: Callable[[], Standing]) -> None:
        """Until cancelled. `turned` returns when the work has gone one round further."""
        while True:
            await turned()
            now = look()
            said = ["READY=1"] if now.ready and not self._ready else []
            self._ready = self._ready or now.ready
            said.append("WATCHDOG=1" if self._ready else f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}")
            if now.status != self._status:
                self._status = now.status
                said.append(f"STATUS={now.status}")
            self.tell(*said)
            await asyncio.sleep(self._pause_s)

    def reloading(self) -> None:
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def reloaded(self, status: str) -> None:
        """Whether or not anything was changed: the service goes on."""
        self._status = status
        self.tell(*(["READY=1"] if self._ready else []), f"STATUS={status}")

    def stopping(self, status: str, within_s: float = 0.0) -> None:
        """`within_s`: so long it may take, if that is longer than the unit allows."""
        extended = [f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}"] if within_s else []
        self.tell("STOPPING=1", f"STATUS={status}", *extended)

    def tell(self, *lines: str) -> None:
        """A manager that is gone, or whose queue is full, is none: the next beat tries again."""
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as link, suppress(OSError):
                link.sendto("\n".join(lines).encode(), self._address)
