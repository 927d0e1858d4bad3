"""One replica: PySyncObj's object around the cluster's state.

What the library demands of us, each found out the hard way:
- a replicated method must never raise: an exception is retried for ever on every replica;
- what is set on the object before its constructor runs is left out of snapshots, what is set after is in them;
- journal and snapshot file belong together: with only one of them a restart loses the log.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from pysyncobj import SyncObj, SyncObjConf, replicated

from gale.core.apply import apply
from gale.core.commands import Command
from gale.core.outcome import Outcome, Rejected
from gale.core.state import ClusterState
from gale.raft.transport import ListedPeersTransport

log = structlog.get_logger()

ELECTION_MIN_S = 0.4
ELECTION_MAX_S = 0.8


def library_settings(me: str, directory: Path) -> dict[str, Any]:
    """The library's settings. Its defaults cost 100 ms a command and let a cut-off leader rule for 30 s."""
    return {
        "autoTick": False,
        "appendEntriesUseBatch": False,
        "appendEntriesPeriod": 0.05,
        "commandsWaitLeader": False,
        "useFork": False,
        "dynamicMembershipChange": False,
        "raftMinTimeout": ELECTION_MIN_S,
        "raftMaxTimeout": ELECTION_MAX_S,
        "leaderFallbackTimeout": ELECTION_MAX_S,
        "connectionTimeout": 3600.0,  # it drops a link that was merely quiet, together with the next vote request
        "connectionRetryTime": 0.3,
        "appendEntriesBatchSizeBytes": 1 << 20,
        "bindAddress": me,
        "maxBindRetries": 1,
        "journalFile": str(directory / "journal"),
        "fullDumpFile": str(directory / "snapshot"),
    }


class Replica(SyncObj):
    def __init__(self, me: str, quorum: tuple[str, ...], directory: Path, decode: Callable[[bytes], Command]) -> None:
        self._decode = decode
        others = [address for address in quorum if address != me]
        super().__init__(
            me, others, SyncObjConf(**library_settings(me, directory)), transportClass=ListedPeersTransport
        )
        self.state = ClusterState()

    @replicated
    def append(self, payload: bytes) -> Outcome:
        """Apply one encoded command. Called by the library on every replica, in log order."""
        try:
            self.state, outcome = apply(self.state, self._decode(payload))
        except Exception as error:
            log.exception("a command could not be applied and was skipped, on every load balancer alike")
            return Rejected(f"not applicable: {error!r}")
        return outcome

    def answered_within(self, seconds: float, now_s: float) -> frozenset[str]:
        """On the leader: the peers whose last answer is no older. `now_s` by the monotonic clock."""
        answers: dict[Any, float] = self._SyncObj__lastResponseTime  # type: ignore[attr-defined]
        return frozenset(peer.id for peer, at_s in answers.items() if now_s - at_s <= seconds)

    def connected(self) -> frozenset[str]:
        peers: set[Any] = self._SyncObj__connectedNodes  # type: ignore[attr-defined]
        return frozenset(peer.id for peer in peers)
