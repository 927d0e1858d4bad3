"""Connections that were turned away: counted always, told in the log once a second at most, because strangers can cause
them."""

import asyncio

import structlog

log = structlog.get_logger()

QUIET_S = 1.0


class Refusals:
    def __init__(self) -> None:
        self.count = 0
        self._told_s = float("-inf")

    def note(self, source: str, reason: str) -> None:
        self.count += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s >= QUIET_S:
            self._told_s = now_s
            log.warning("raft connection refused", source=source, reason=reason, refused_so_far=self.count)
