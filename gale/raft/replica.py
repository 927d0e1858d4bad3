"""One replica: PySyncObj's object around the cluster's state, made fit to carry it.

The library is used through its extension points, and through a few of its private names, which is why its version is
pinned and `test_the_names_we_rely_on_exist` watches them. What it does by itself, and what is done here instead:

- it unpickles commands, messages and snapshots: all three are protobuf here, and its loaders refuse to work;
- it retries a command that raises for ever, on every replica: `apply` is total, and what still raises is skipped;
- a caller's callback that raises makes it apply twice: callbacks are guarded;
- it throws away a journal that begins before its snapshot, which is how a crash between the two leaves them: the
  journal is brought in line first, so that acknowledged entries behind the snapshot stay.
"""

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj
import structlog
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node

from gale.core.apply import apply
from gale.core.commands import Command
from gale.core.outcome import Outcome, Rejected
from gale.core.state import ClusterState
from gale.errors import HostError
from gale.raft import transport
from gale.raft.journal import Journal
from gale.raft.records import Entry
from gale.raft.rules import Entries, Message

log = structlog.get_logger()

ELECTION_MIN_S = 0.3
ELECTION_MAX_S = 0.6
COMMAND = 0  # the library's kind byte of an entry that carries a command


class Codec(transport.Codec, Protocol):
    """Everything a replica writes and reads, as bytes; decoders raise ValueError."""

    def encode_command(self, command: Command) -> bytes: ...
    def decode_command(self, payload: bytes) -> Command: ...
    def encode_snapshot(self, state: ClusterState, before_last: Entry, last: Entry) -> bytes: ...
    def decode_snapshot(self, packed: bytes) -> tuple[ClusterState, Entry, Entry]: ...


def _refuse_to_unpickle(*_: object, **__: object) -> NoReturn:
    raise ValueError("gale unpickles nothing")


pysyncobj.pickle.loads = pysyncobj.pickle.load = pysyncobj.journal.loads = _refuse_to_unpickle


class Replica(SyncObj):
    """`me` and `quorum`: addresses "IP:PORT". `woken` is called when a message arrived and a tick should follow."""

    def __init__(
        self, me: str, quorum: Sequence[str], directory: Path, codec: Codec, woken: Callable[[], None]
    ) -> None:
        self.state = ClusterState()
        self.journal = Journal(directory)
        self._codec = codec
        self._snapshot = directory / "snapshot"
        self._woken = woken
        pysyncobj.syncobj.createJournal = lambda _: self.journal
        try:
            self._check_snapshot()
            super().__init__(
                Node(me),
                [Node(address) for address in quorum if address != me],
                SyncObjConf(
                    autoTick=False,
                    appendEntriesUseBatch=False,
                    appendEntriesPeriod=0.05,
                    appendEntriesBatchSizeBytes=1 << 20,
                    commandsWaitLeader=False,
                    useFork=False,
                    dynamicMembershipChange=False,
                    raftMinTimeout=ELECTION_MIN_S,
                    raftMaxTimeout=ELECTION_MAX_S,
                    leaderFallbackTimeout=ELECTION_MAX_S,
                    connectionTimeout=3600.0,  # of the library's own transport, which is not used
                    journalFile=str(directory / "journal"),
                    fullDumpFile=str(self._snapshot),
                    serializer=self._write_snapshot,
                    deserializer=self._read_snapshot,
                ),
                nodeClass=Node,
                transportClass=functools.partial(transport.PeerTransport, codec=codec),
            )
        except BaseException:
            self.journal._destroy()
            raise

    # for the consensus

    @property
    def transport(self) -> transport.PeerTransport:
        found: transport.PeerTransport = self._SyncObj__transport  # type: ignore[attr-defined]
        return found

    def submit(self, command: Command, ended: Callable[[Outcome | None, int], None]) -> None:
        """Append a command. `ended` gets its outcome, or None, and the library's reason, 0 for success."""
        self._applyCommand(self._codec.encode_command(command), _guarded(ended), COMMAND)

    def answered_within(self, seconds: float) -> frozenset[str]:
        """On the leader: the peers whose last answer is no older."""
        now_s = time.monotonic()
        answers: dict[Node, float] = self._SyncObj__lastResponseTime  # type: ignore[attr-defined]
        return frozenset(peer.id for peer, at_s in answers.items() if now_s - at_s <= seconds)

    def connected(self) -> frozenset[str]:
        peers: set[Node] = self._SyncObj__connectedNodes  # type: ignore[attr-defined]
        return frozenset(peer.id for peer in peers)

    def step_down(self) -> None:
        """Lead no more: the others elect somebody. Used when the disk does not take what leading writes."""
        if self._isLeader():
            self._SyncObj__setState(0)  # type: ignore[attr-defined]  # follower
            self._SyncObj__raftLeader = None

    # transport.Owner

    @property
    def entries(self) -> Entries:
        return self.journal

    @property
    def term(self) -> int:
        return self._getTerm()

    @property
    def commit_index(self) -> int:
        return self.raftCommitIndex

    @property
    def leads(self) -> bool:
        return self._isLeader()

    def barrier(self) -> None:
        self.journal.barrier()

    def take_answer(self, node: Node, message: Message, deliver: Callable[[Node, Message], None]) -> None:
        indexes: dict[Node, int] = self._SyncObj__raftNextIndex  # type: ignore[attr-defined]
        before = indexes.get(node, 0)
        deliver(node, message)
        if message["success"]:
            indexes[node] = max(before, indexes.get(node, 0))

    def wake(self) -> None:
        self._woken()

    # what the library calls

    def _SyncObj__doApplyCommand(self, entry: bytes) -> Outcome | None:
        if entry[0] != COMMAND:
            return None
        try:
            self.state, outcome = apply(self.state, self._codec.decode_command(entry[1:]))
        except Exception as error:
            log.exception("a command could not be applied and is skipped, on every load balancer alike")
            return Rejected(f"not applicable: {error!r}")
        return outcome

    def _SyncObj__parseChangeClusterRequest(self, entry: bytes) -> None:
        """Membership is the configured list; entries never change it."""

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        """At the start, and when a snapshot came from the leader (`clearJournal`), whose damage raises ValueError."""
        if not self._snapshot.exists():
            return
        _, before_last, last = self._codec.decode_snapshot(self._snapshot.read_bytes())
        if clearJournal:
            self._sync_snapshot()  # the journal is emptied next, and that is durable
        else:
            position = before_last[1] - self.journal[0][1]
            if position > 0 and self.journal[position : position + 2] == [before_last, last]:
                self.journal.deleteEntriesTo(position)
        super()._SyncObj__loadDumpFile(clearJournal)  # type: ignore[misc]

    # snapshots

    def _write_snapshot(self, path: str, entries: tuple[Entry, Entry, object]) -> None:
        """`entries`: the last applied one, the one before it, and the members, which are not ours to keep."""
        last, before_last, _ = entries
        with open(path, "wb") as file:
            file.write(self._codec.encode_snapshot(self.state, before_last, last))
            file.flush()
            os.fsync(file.fileno())

    def _read_snapshot(self, path: str) -> tuple[Entry, Entry, tuple[()]]:
        self.state, before_last, last = self._codec.decode_snapshot(Path(path).read_bytes())
        return last, before_last, ()

    def _sync_snapshot(self) -> None:
        for path, flags in ((self._snapshot, os.O_RDONLY), (self._snapshot.parent, os.O_RDONLY | os.O_DIRECTORY)):
            descriptor = os.open(path, flags)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _check_snapshot(self) -> None:
        """Refuse to start on a damaged one: the log before it is gone, and an empty state must never vote."""
        try:
            if self._snapshot.exists():
                _, _, (_, _, term) = self._codec.decode_snapshot(self._snapshot.read_bytes())
                if term > self.journal.getCurrentTerm():
                    raise ValueError("it is newer than journal and meta beside it")
        except ValueError as error:
            raise HostError(
                f"{self._snapshot}: damaged: {error}; move {self._snapshot.parent} aside and start again,"
                " the other load balancers will fill it"
            ) from error


def _guarded(ended: Callable[[Outcome | None, int], None]) -> Callable[[Outcome | None, int], None]:
    def guard(outcome: Outcome | None, reason: int) -> None:
        try:
            ended(outcome, reason)
        except Exception:
            log.exception("whoever proposed a command failed to take its outcome")

    return guard
