"""Logging: structlog on standard error, one line an event, key=value; coloured on a terminal only.

What libraries say through the standard library's logging comes out in the same form, from WARNING up.
"""

import logging
import sys
import time

import structlog


def configure(level: str = "info") -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        last: structlog.typing.Processor = structlog.dev.ConsoleRenderer()
    else:
        last = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    foreign: list[structlog.typing.Processor] = [*shared, structlog.processors.format_exc_info]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=last, foreign_pre_chain=foreign))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class Refusals:
    """What strangers can cause: counted each time, and told in the log once a second at most."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._told_s = float("-inf")
        self.count = 0

    def note(self, times: int = 1, event: str = "", **about: object) -> None:
        self.count += times
        now_s = time.monotonic()
        if now_s - self._told_s >= 1.0:
            self._told_s = now_s
            structlog.get_logger().warning(event or self._event, **about, refused_so_far=self.count)
