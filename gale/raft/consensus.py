"""gale.ports.Consensus over a replica that is ticked from the one asyncio loop.

The library has no thread here: `tick` runs every 10 ms and right after each proposal. All it does happens inside a
tick, so after each one it is enough to compare the state with the one before to know that something was committed.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from pysyncobj import FAIL_REASON, SyncObjException

from gale.core.commands import Command
from gale.core.outcome import Outcome
from gale.core.state import ClusterState
from gale.errors import ConsensusError, HostError
from gale.ports import ConsensusStatus
from gale.raft.replica import Replica

log = structlog.get_logger()

TICK_S = 0.01
PROPOSAL_S = 2.0
ANSWER_S = 1.0

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
    """`me` and `quorum`: addresses "IP:PORT"."""

    def __init__(
        self,
        me: str,
        quorum: tuple[str, ...],
        directory: Path,
        *,
        encode: Callable[[Command], bytes],
        decode: Callable[[bytes], Command],
    ) -> None:
        self._me = me
        self._encode = encode
        self._changed: Callable[[], None] = lambda: None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._replica = Replica(me, quorum, directory, decode)
        except SyncObjException as error:
            raise HostError(
                f"Raft cannot listen on {me}: is the port in use, or the address not this machine's?"
            ) from error
        except OSError as error:
            raise HostError(f"{directory}: cannot hold the log: {error.strerror}") from error
        self._told: ClusterState = self._replica.state
        self._failing = False
        self._ticking: asyncio.Task[None] | None = None

    @property
    def state(self) -> ClusterState:
        return self._replica.state

    @property
    def ready(self) -> bool:
        return self._replica.isReady()

    def start(self, changed: Callable[[], None]) -> None:
        """Begin to tick. `changed` is called after each tick that changed the state."""
        self._changed = changed
        self._ticking = asyncio.get_running_loop().create_task(self._tick_for_ever())

    async def stop(self) -> None:
        if self._ticking:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
        self._replica.destroy()

    def status(self) -> ConsensusStatus:
        """A leader that is remembered, but that no majority could follow any more, is none."""
        replica = self._replica
        leads = replica._isLeader()
        leader = self._me if leads else replica._getLeader()
        quorum = leader is not None and replica.hasQuorum
        heard = replica.answered_within(ANSWER_S, time.monotonic()) if leads else replica.connected()
        return ConsensusStatus(
            leader=str(leader) if quorum else None,
            term=replica._getTerm(),
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

        self._replica.append(self._encode(command), callback=end)  # type: ignore[call-arg]
        asyncio.get_running_loop().call_soon(self._tick)
        try:
            return await asyncio.wait_for(ended, PROPOSAL_S)
        except TimeoutError:
            raise ConsensusError(f"not known to be committed: no answer within {PROPOSAL_S:g} s") from None

    async def _tick_for_ever(self) -> None:
        while True:
            self._tick()
            await asyncio.sleep(TICK_S)

    def _tick(self) -> None:
        try:
            self._replica.doTick(0)
        except Exception:
            if not self._failing:
                log.exception("the Raft library failed in a tick; the next one tries again")
            self._failing = True
        else:
            self._failing = False
        if self._replica.state is not self._told:
            self._told = self._replica.state
            self._changed()
