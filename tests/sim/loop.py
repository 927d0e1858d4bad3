"""Virtual time: one asyncio event loop per simulated machine, and the world that runs them one turn at a time.

The world always runs the loop whose next callback is due first, and sets the time to that. So a second costs only what
is done in it, and the same seed does the same things in the same order. Within a turn time stands still, unless
something that takes time is called (a sync): then that machine alone is later, and the others catch up.

    pause    the loop is not run until later, and then finds its timers overdue: SIGSTOP, or a stolen processor
    killed   the loop is not run again. The coroutines that it held are closed with every door shut, so that their
             cleanup code has no effect: nothing a killed process would not have done is done

A killed machine may be in the middle of something. `Died` is a SystemExit because asyncio lets that one through.
"""

import asyncio
import heapq
import itertools
import traceback
from asyncio import events
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

TURN_S = 0.000_02  # what a turn costs; also what keeps two machines from waking each other for ever at the same time


class Died(SystemExit):
    """This machine's process ends here."""


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """`ran_s`: how long this machine has run, pauses and standstills left out."""

    def __init__(self, world: "World", name: str) -> None:
        super().__init__()
        self.name = name
        self.dead = False
        self.ran_s = 0.0
        self.busy_until_s = 0.0
        self._works_until_s = 0.0  # the part of that which is no pause
        self.failures: list[str] = []
        self._world = world
        self._spent_s = 0.0
        self._turned_s = world.now_s
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self._world.now_s + self._spent_s

    def spend(self, seconds: float) -> None:
        """The machine does nothing else for so long: a system call that takes its time."""
        self._spent_s += seconds

    def pause(self, until_s: float) -> None:
        self.busy_until_s = max(self.busy_until_s, until_s)

    def resume(self) -> None:
        """End a pause early."""
        self.busy_until_s = self._works_until_s

    def due_s(self) -> float:
        """When the next turn is due; infinity when nothing is."""
        if self._ready:  # type: ignore[attr-defined]
            return self.busy_until_s
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        return max(timers[0][0], self.busy_until_s) if timers else float("inf")

    def turn(self) -> None:
        """Run what is due now, once."""
        now_s = self._world.now_s
        self.ran_s += min(now_s - self._turned_s, 0.05)
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        while timers and timers[0][0] <= now_s:
            ready.append(heapq.heappop(timers)[2])
        events._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            events._set_running_loop(None)
            self._works_until_s = now_s + self._spent_s + TURN_S
            self.busy_until_s = max(self.busy_until_s, self._works_until_s)
            self._spent_s, self._turned_s = 0.0, now_s

    def ask(self, question: Callable[[], Any]) -> Any:
        """Call something between turns, as if on this machine."""
        events._set_running_loop(self)
        try:
            return question()
        finally:
            events._set_running_loop(None)

    def kill(self) -> None:
        """Never run again. What outlives the process (disk, network) must have been cut off from it before."""
        self.dead = True
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(BaseException):
                task.get_coro().close()
        self._ready.clear()  # type: ignore[attr-defined]
        self._timers.clear()
        self.close()

    def call_at(  # type: ignore[override]  # what it takes is the same, said with fewer words
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            where = traceback.extract_tb(getattr(context.get("exception"), "__traceback__", None))[-3:]
            steps = " < ".join(f"{Path(step.filename).name}:{step.lineno}" for step in reversed(where))
            self.failures.append(f"{context.get('message')}: {context.get('exception')!r} at {steps}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def __del__(self, _warn: object = None) -> None:
        pass


class World:
    """All loops, and the time. `after_turn` is called after each turn of any loop, with that loop; `died` when the
    process of that machine has ended in the middle of it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.loops: list[VirtualLoop] = []
        self.turns = 0
        self.after_turn: Callable[[VirtualLoop], None] = lambda loop: None
        self.died: Callable[[VirtualLoop], None] = lambda loop: None

    def make_loop(self, name: str) -> VirtualLoop:
        loop = VirtualLoop(self, name)
        self.loops.append(loop)
        return loop

    def kill(self, loop: VirtualLoop) -> None:
        self.loops.remove(loop)
        loop.kill()

    def run_until(self, until_s: float) -> None:
        while True:
            soonest_s, soonest = float("inf"), None
            for loop in self.loops:
                due_s = loop.due_s()
                if due_s < soonest_s:
                    soonest_s, soonest = due_s, loop
            if soonest is None or soonest_s > until_s:
                self.now_s = max(self.now_s, until_s)
                return
            self.now_s = max(self.now_s, soonest_s)
            self.turns += 1
            try:
                soonest.turn()
            except Died:
                self.died(soonest)
            self.after_turn(soonest)


def monotonic_s() -> float:
    """The time of the machine that is running now."""
    return asyncio.get_running_loop().time()
