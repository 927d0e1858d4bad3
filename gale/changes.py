"""The log's lines about what was committed: one for each change of a node's phase, and of whatever else has events."""

from collections.abc import Sequence

import structlog

from gale.core.state import Transition
from gale.log import Sparing

log = structlog.get_logger()

CHANGES_MAX = 100
"""Told in a second: more is read by nobody."""


class Changes:
    def __init__(self) -> None:
        self._told = 0
        self._lines = Sparing("more has changed than this: gale-ctl events", CHANGES_MAX)

    def tell(self, transitions: Sequence[Transition], now_ms: int, *, replayed: bool) -> None:
        """What was not told before; but those that a restart replays from the log were told in the life before."""
        self._lines.settle(now_ms)
        if not transitions or transitions[-1].sequence == self._told:
            return
        for transition in transitions:
            if transition.sequence > self._told and not replayed and self._lines.may(now_ms):
                log.info(
                    f"{transition.subject}: {transition.before} -> {transition.after}",
                    cause=transition.cause,
                    who=transition.who,
                    index=transition.index,
                    sequence=transition.sequence,
                )
        self._told = transitions[-1].sequence
