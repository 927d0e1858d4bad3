"""What happened in a run, line by line: the last lines explain a violation, and a hash of all of them is how two runs
of one seed are known to be the same. What gale and the library log goes in here too."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NoReturn

import structlog

KEPT = 400


class Violation(Exception):
    """Something that gale promises does not hold."""


class Trace(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: deque[str] = deque(maxlen=KEPT)
        self.violation = ""
        self._hash = blake2b(digest_size=8)

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def add(self, line: str, now_s: float | None = None) -> None:
        loop = asyncio._get_running_loop()
        if now_s is None:
            now_s = loop.time() if loop else 0.0
        line = f"{now_s:9.4f} {getattr(loop, 'name', '')} {line}"
        self._hash.update(line.encode())
        self.last.append(line)

    def install(self) -> None:
        structlog.configure(processors=[self._take], cache_logger_on_first_use=False)
        foreign = logging.getLogger("pysyncobj")
        foreign.handlers[:] = [self]
        foreign.propagate = False

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep a violation for the end of the turn: inside of gale it could be caught."""
        try:
            yield
        except Violation as violation:
            self.violation = self.violation or str(violation)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.add(f"pysyncobj: {text}")
        if record.levelno >= logging.ERROR:
            self.violation = self.violation or f"the library says: {text}"

    def _take(self, _: object, level: str, event: MutableMapping[str, Any]) -> NoReturn:
        rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("event", "exc_info"))
        self.add(f"{level}: {event['event']} {rest}")
        raise structlog.DropEvent
