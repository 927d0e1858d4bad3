"""gale.ports.Consensus over a replica that is ticked from the one asyncio loop.

The library has no thread here: a tick follows every message that arrives and every proposal, and a timer ticks every
10 ms for elections and heartbeats. All the library does by itself happens inside a tick, so after each one it is enough
to compare the state with the one before to know that something was committed.

One proposal of a load balancer is under way at a time, under a number that the state remembers (gale/core/once.py). So
it can be handed in again and again, to whoever leads by then, until its outcome is known or its time is up, and takes
effect once at most.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog
from pysyncobj import FAIL_REASON

from gale.core.commands import Command, Origin, Proposal
from gale.core.hello import Hello
from gale.core.membership import check_members
from gale.core.once import next_epoch
from gale.core.outcome import Applied, Outcome, Repeated, Superseded
from gale.core.state import ClusterState
from gale.errors import ConfigError, ConsensusError
from gale.log import Refusals
from gale.ports import Clock, ConsensusStatus
from gale.raft.disk import Disk, DiskError
from gale.raft.replica import Codec, Replica
from gale.raft.streams import Streams

log = structlog.get_logger()

TICK_S = 0.01
PROPOSAL_S = 2.0
ATTEMPT_S = 0.5
RETRY_S = 0.02
ANSWER_S = 1.0
HAND_OVER_S = 2.0
STOPPING_S = 0.5
CLOSING_S = 0.05  # for connections that were accepted in the last moment to be closed as well

REASONS = {
    FAIL_REASON.QUEUE_FULL: "too many proposals wait already",
    FAIL_REASON.MISSING_LEADER: "there is no leader",
    FAIL_REASON.DISCARDED: "a new leader discarded it",
    FAIL_REASON.NOT_LEADER: "the leader changed",
    FAIL_REASON.LEADER_CHANGED: "the leader changed",
    FAIL_REASON.REQUEST_DENIED: "it was denied",
    FAIL_REASON.UNKNOWN_OUTCOME: "its outcome is unknown",
}


class RaftConsensus:
    """`hello`: how this load balancer introduces itself. Must be made, started and stopped inside a running loop."""

    def __init__(
        self, hello: Hello, disk: Disk, codec: Codec, streams: Streams, clock: Clock, refusals: Refusals
    ) -> None:
        self._hello = hello
        self._me = hello.address
        self._clock = clock
        self._changed: Callable[[], None] = lambda: None
        self._tick_is_due = False
        self._failing = False
        self._ticking: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._epoch = 0
        self._sequence = 0
        self._why = ""  # the last attempt of the last proposal failed
        self._replica = Replica(hello, disk, codec, streams, refusals, woken=self._tick_soon)
        self._told: ClusterState = self._replica.state

    @property
    def state(self) -> ClusterState:
        return self._replica.state

    @property
    def ready(self) -> bool:
        return self._replica.isReady()

    async def start(self, changed: Callable[[], None]) -> None:
        """Begin to talk and to tick; `changed` is called after each tick that changed the state. Raises ConfigError
        when the configured list of load balancers cannot follow the one that is in force."""
        self._changed = changed
        self._tick()  # takes up what the disk says is committed
        while self._replica.behind and not self._failing:
            self._tick()
        if reason := check_members(self.state.members, self._hello.members):
            raise ConfigError(f"load_balancer_quorum.addresses: {reason}")
        await self._replica.transport.start()
        self._ticking = asyncio.get_running_loop().create_task(self._tick_for_ever())

    def introduce(self, hello: Hello) -> None:
        """Another configuration than before: the peers judge it anew. Address and list of members are the same."""
        self._hello = hello
        self._replica.transport.introduce(hello)

    async def stop(self) -> None:
        """Hand leadership over, if there is anybody to take it, and end."""
        if self._ticking:
            with suppress(ConsensusError):
                await self.hand_over(within_s=STOPPING_S)
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
        self._replica.destroy()
        await asyncio.sleep(CLOSING_S)

    async def hand_over(self, to: str = "", within_s: float = HAND_OVER_S) -> None:
        """Lead no more, if this one does: the peer `to` leads then, or the one that is furthest. It has to be level for
        that, which it is between two commits, so it is tried again and again. Raises ConsensusError."""
        replica = self._replica
        if replica.leads and to and to not in replica.connected():
            raise ConsensusError(f"{to} is not in contact with the leader")
        try:
            async with asyncio.timeout(within_s):
                while replica.leads and replica.connected():
                    replica.transferLeadership(to or None)
                    await asyncio.sleep(TICK_S)
        except TimeoutError:
            raise ConsensusError(f"nobody took over within {within_s:g} s: {self._me} leads on") from None
        if replica.leads:
            raise ConsensusError(f"there is nobody to hand over to: {self._me} leads on")

    def status(self) -> ConsensusStatus:
        """A leader that is remembered, but that no majority could follow any more, is none."""
        replica, wire = self._replica, self._replica.transport
        leader = replica.leader() if replica.hasQuorum else None
        heard = replica.answered_within(ANSWER_S) if replica.leads else replica.connected()
        return ConsensusStatus(
            leader=leader,
            term=replica.term,
            quorum=leader is not None,
            applied_index=replica.applied_index,
            connected=heard | {self._me},
            learner=replica.learner,
            ignored=dict(wire.ignored),
            differs=dict(wire.differs),
            refused=wire.refusals.count,
        )

    async def propose(self, command: Command) -> Outcome:
        try:
            async with asyncio.timeout(PROPOSAL_S):
                async with self._turn:
                    return await self._settle(command)
        except TimeoutError:
            raise ConsensusError(f"not known to be committed within {PROPOSAL_S:g} s: {self._why}") from None

    async def _settle(self, command: Command) -> Outcome:
        """Hand it in until there is an outcome. Waits for ever; the time limit is the caller's."""
        if not self._epoch:
            self._begin_epoch()
        while True:
            self._sequence += 1
            outcome = await self._insist(Proposal(Origin(self._me, self._epoch, self._sequence), command))
            if not isinstance(outcome, Superseded):
                return Applied() if isinstance(outcome, Repeated) else outcome
            self._epoch = outcome.epoch  # the state was not level when this epoch began
            self._begin_epoch()

    def _begin_epoch(self) -> None:
        """A number that no life of this load balancer has had: not known to the state, nor to the disk."""
        least = max(self._epoch + 1, next_epoch(self.state, self._me, self._clock.wall_ms()))
        try:
            self._epoch = self._replica.begin_epoch(least)
        except DiskError as error:
            raise ConsensusError(f"not committed: {error}") from error
        self._sequence = 0

    async def _insist(self, proposal: Proposal) -> Outcome:
        """The same proposal again after every failure that another attempt may mend: all of them."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._why = "no answer"
        while True:
            failed = asyncio.Event()

            def end(outcome: Outcome | None, failure: int, failed: asyncio.Event = failed) -> None:
                if outcome is not None and failure == FAIL_REASON.SUCCESS:
                    if not ended.done():
                        ended.set_result(outcome)
                else:
                    self._why = REASONS.get(failure, f"reason {failure}")
                    failed.set()

            self._replica.submit(proposal, end)
            self._tick_soon()
            failing = asyncio.ensure_future(failed.wait())
            try:
                await asyncio.wait((ended, failing), timeout=ATTEMPT_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                failing.cancel()
            if ended.done():
                return ended.result()
            await asyncio.sleep(RETRY_S)

    async def _tick_for_ever(self) -> None:
        while True:
            self._tick()
            await asyncio.sleep(TICK_S)

    def _tick_soon(self) -> None:
        """Once, however many messages arrive in this turn of the loop."""
        if not self._tick_is_due:
            self._tick_is_due = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_is_due = False
        try:
            self._replica.tick()
        except DiskError as error:
            self._replica.step_down()
            self._fail("the log cannot be written: this load balancer votes and leads no more, and forwards on", error)
        except Exception as error:
            self._fail("the Raft library failed in a tick; the next one tries again", error)
        else:
            if self._failing:
                log.info("the log is well again")
            self._failing = False
        if self._replica.state is not self._told:
            self._told = self._replica.state
            self._changed()

    def _fail(self, what: str, error: Exception) -> None:
        """Say it once, until it is well again."""
        if not self._failing:
            log.error(what, reason=str(error) or repr(error), exc_info=not isinstance(error, DiskError))
        self._failing = True
