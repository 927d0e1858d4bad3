"""gale.ports.Consensus over a replica that is ticked from the one asyncio loop.

The library has no thread here: a tick follows every message that arrives and every proposal, and a timer ticks every
10 ms for elections and heartbeats. All the library does by itself happens inside a tick, so after each one it is enough
to compare the state with the one before to know that something was committed.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from pysyncobj import FAIL_REASON

from gale.core.commands import Command
from gale.core.outcome import Outcome
from gale.core.state import ClusterState
from gale.errors import ConsensusError, HostError
from gale.ports import ConsensusStatus
from gale.raft.journal import DiskError
from gale.raft.replica import Codec, Replica

log = structlog.get_logger()

TICK_S = 0.01
PROPOSAL_S = 2.0
ANSWER_S = 1.0
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
    """`me` and `quorum`: addresses "IP:PORT". Must be made, started and stopped inside a running loop."""

    def __init__(self, me: str, quorum: Sequence[str], directory: Path, codec: Codec) -> None:
        self._me = me
        self._changed: Callable[[], None] = lambda: None
        self._tick_is_due = False
        self._failing = False
        self._ticking: asyncio.Task[None] | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"{directory}: cannot hold the log: {error.strerror}") from error
        try:
            self._replica = Replica(me, quorum, directory, codec, woken=self._tick_soon)
        except OSError as error:
            raise HostError(f"Raft cannot listen on {me}: {error.strerror}") from error
        self._told: ClusterState = self._replica.state

    @property
    def state(self) -> ClusterState:
        return self._replica.state

    @property
    def ready(self) -> bool:
        return self._replica.isReady()

    async def start(self, changed: Callable[[], None]) -> None:
        """Begin to talk and to tick. `changed` is called after each tick that changed the state."""
        self._changed = changed
        self._tick()  # takes up the snapshot, before the first message is compared with the log
        await self._replica.transport.start()
        self._ticking = asyncio.get_running_loop().create_task(self._tick_for_ever())

    async def stop(self) -> None:
        if self._ticking:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
        self._replica.destroy()
        await asyncio.sleep(CLOSING_S)

    def status(self) -> ConsensusStatus:
        """A leader that is remembered, but that no majority could follow any more, is none."""
        replica = self._replica
        leads = replica._isLeader()
        leader = self._me if leads else replica._getLeader()
        quorum = leader is not None and replica.hasQuorum
        heard = replica.answered_within(ANSWER_S) if leads else replica.connected()
        return ConsensusStatus(
            leader=str(leader) if quorum else None,
            term=replica.term,
            quorum=quorum,
            applied_index=replica.raftLastApplied,
            connected=heard | {self._me},
        )

    async def propose(self, command: Command) -> Outcome:
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def end(outcome: Outcome | None, failure: int) -> None:
            if ended.done():
                return
            if outcome is not None and failure == FAIL_REASON.SUCCESS:
                ended.set_result(outcome)
            else:
                ended.set_exception(ConsensusError(f"not committed: {REASONS.get(failure, f'reason {failure}')}"))

        self._replica.submit(command, end)
        self._tick_soon()
        try:
            return await asyncio.wait_for(ended, PROPOSAL_S)
        except TimeoutError:
            raise ConsensusError(f"not known to be committed: no answer within {PROPOSAL_S:g} s") from None

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
            self._replica.barrier()  # after a sync that failed nothing more is applied
            self._replica.doTick(0)
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
