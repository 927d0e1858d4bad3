"""Logging: structlog on standard error, one line an event: key=value, coloured on a terminal only, but not with
NO_COLOR; or JSON.

    error    gale cannot do its work until somebody acts, or until what is named is well again
    warning  something is not as it should be, and gale goes on; or somebody was turned away
    info     a change, with its cause

What libraries say through the standard library's logging comes out in the same form, from WARNING up. What strangers
can cause has a bound: of what is beyond it, only how much there was is told.
"""

import logging
import os
import sys
import time

import structlog

FORMS = ("text", "json")
LINES_MAX = 10
"""Of one kind that strangers can cause, in a second."""


def configure(level: str = "info", form: str = FORMS[0]) -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = _last(form)
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Foreign())
    foreign: list[structlog.typing.Processor] = [*shared, structlog.processors.format_exc_info]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=last, foreign_pre_chain=foreign))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def beside_answers() -> None:
    """For a program whose standard output is its answer, and which keeps no log."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, _last(FORMS[0])],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _last(form: str) -> structlog.typing.Processor:
    if form == "json":
        return structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        return structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
    first = ["timestamp", "level", "event"]
    return structlog.processors.LogfmtRenderer(key_order=first, drop_missing=True, bool_as_flag=False)


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


class Sparing:
    """Lines that strangers can cause, `most` in a second. `event`: how is told that there were more, when the second is
    over. Time is an argument, so that a simulated cluster says the same each time."""

    def __init__(self, event: str, most: int = LINES_MAX) -> None:
        self._event = event
        self._most = most
        self._begun_ms = 0
        self._lines = self._left_out = 0

    def may(self, now_ms: int) -> bool:
        """Whether one more line may be said."""
        self.settle(now_ms)
        may = self._lines < self._most
        self._lines += may
        self._left_out += not may
        return may

    def settle(self, now_ms: int) -> None:
        """Tell what was left out, once the second is over."""
        if now_ms - self._begun_ms < 1_000:
            return
        left_out, self._begun_ms = self._left_out, now_ms
        self._lines = self._left_out = 0
        if left_out:
            structlog.get_logger().warning(self._event, lines=left_out)


class _Foreign(logging.Filter):
    """Of what libraries say, who knows what strangers can cause?"""

    def __init__(self) -> None:
        super().__init__()
        self._sparing = Sparing("libraries said more than this")

    def filter(self, record: logging.LogRecord) -> bool:
        return self._sparing.may(round(1_000 * time.monotonic()))
