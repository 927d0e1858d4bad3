"""One replica: PySyncObj's object around the cluster's state, made fit to carry it.

The library is used through its extension points, and through a few of its private names, which is why its version is
pinned and `test_the_names_we_rely_on_exist` watches them. What it does by itself, and what is done here instead:

- it unpickles commands, messages and snapshots: all three are protobuf here, and its loaders refuse to work;
- it retries a command that raises for ever, on every replica: `apply` is total, and what still raises is skipped;
- a caller's callback that raises makes it apply twice: callbacks are guarded;
- it throws away a journal that begins before its snapshot, which is how a crash between the two leaves them: the
  journal is brought in line instead, so that acknowledged entries behind the snapshot stay;
- whoever hears no leader raises its term, and deposes one that is well: here it asks first (election.py);
- a replica without its log votes as if nothing had ever been: here it is a learner, until it has what the leader has.

About the learner. What it acknowledged before its loss it does not know any more, so with its vote a leader could be
elected that lacks a committed entry. It votes again once its log holds an entry of the leader's own term that is
committed: everything that was ever committed stands before that one. Only when a majority of load balancers have
nothing, and never had, is there nothing to lose, and they begin.
"""

import functools
from collections.abc import Callable
from typing import NoReturn, Protocol

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj
import structlog
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node

from gale.core.apply import apply
from gale.core.commands import Proposal
from gale.core.hello import Hello
from gale.core.membership import agreed
from gale.core.outcome import Outcome, Rejected
from gale.core.state import ClusterState
from gale.errors import HostError
from gale.log import Refusals
from gale.raft import snapshots, transport
from gale.raft.disk import Disk
from gale.raft.election import Standing, would_vote
from gale.raft.journal import Journal
from gale.raft.rules import Entries, Message, term_at
from gale.raft.streams import Streams

log = structlog.get_logger()

ELECTION_MIN_S = 0.3
ELECTION_MAX_S = 0.6
HEARD_S = 0.25
"""A leader that was heard within this is well; its heartbeats come five times as often."""
APPLY_S = 0.01
"""For entries that are applied in one tick: one of them may take as long, when ten thousand nodes join."""
COMMAND = 0  # the library's kind byte of an entry that carries a command


class Codec(transport.Codec, snapshots.Codec, Protocol):
    """Everything a replica writes and reads, as bytes; decoders raise ValueError."""

    def encode_command(self, proposal: Proposal) -> bytes: ...
    def decode_command(self, payload: bytes) -> Proposal: ...


def _refuse_to_unpickle(*_: object, **__: object) -> NoReturn:
    raise ValueError("gale unpickles nothing")


pysyncobj.pickle.loads = pysyncobj.pickle.load = pysyncobj.journal.loads = _refuse_to_unpickle


class Replica(SyncObj):
    """`woken` is called when a message arrived and a tick should follow. Raises HostError for what cannot be mended."""

    def __init__(
        self,
        hello: Hello,
        disk: Disk,
        codec: Codec,
        streams: Streams,
        refusals: Refusals,
        woken: Callable[[], None],
    ) -> None:
        self.state = ClusterState()
        self.journal = Journal(disk)
        self._codec = codec
        self._woken = woken
        self._snapshots = snapshots.Snapshots(disk, codec, self)
        self._members = hello.members
        self._canvassed: set[str] = set()  # who would vote for this one in the term after this
        self._may_stand = False
        self._heard: tuple[Node, float] | None = None  # the leader, and when
        pysyncobj.syncobj.createJournal = lambda _: self.journal
        try:
            self._recover(disk)
            super().__init__(
                Node(hello.address),
                [Node(address) for address in hello.members if address != hello.address],
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
                ),
                nodeClass=Node,
                transportClass=functools.partial(
                    transport.PeerTransport, hello=hello, codec=codec, streams=streams, refusals=refusals
                ),
            )
            self._SyncObj__serializer = self._snapshots
            if self._snapshots.loaded:
                self._SyncObj__loadDumpFile(clearJournal=False)
        except BaseException:
            self.journal._destroy()
            raise

    def _recover(self, disk: Disk) -> None:
        """Find out what there is. A log whose beginning is lost is no log: the others have one."""
        if len(self._members) == 1 and self.journal.learner:
            self.journal.set_learner(False)
        lost = ""
        try:
            self._snapshots.load()
        except ValueError as error:
            lost = f"{disk.path / snapshots.SNAPSHOT}: damaged: {error}"
        if not lost and not self._snapshots.loaded and len(self.journal) and self.journal[0][1] > 1:
            lost = f"{disk.path / snapshots.SNAPSHOT}: missing, and the log begins behind it"
        if not lost:
            return
        if len(self._members) == 1:
            raise HostError(f"{lost}; there is no other load balancer to fill this one: bring back a copy of the file")
        log.error("this load balancer has lost its log: it does not vote until the others have filled it", reason=lost)
        self.journal.set_learner(True)
        self._snapshots.put_aside()
        self.journal.clear()

    # for the consensus

    @property
    def transport(self) -> transport.PeerTransport:
        found: transport.PeerTransport = self._SyncObj__transport  # type: ignore[attr-defined]
        return found

    def tick(self) -> None:
        """Raises DiskError; after a sync that failed nothing more is applied."""
        self.journal.barrier()
        self._begin_together()
        self._ask_before_standing()
        self.doTick(0)
        if self.leads:
            self.transport.ask_who_follows()

    @property
    def behind(self) -> bool:
        """Something is committed that is not applied yet."""
        return self.raftLastApplied < self.raftCommitIndex

    def submit(self, proposal: Proposal, ended: Callable[[Outcome | None, int], None]) -> None:
        """Append a command. `ended` gets its outcome, or None, and the library's reason, 0 for success."""
        self._applyCommand(self._codec.encode_command(proposal), _guarded(ended), COMMAND)

    def begin_epoch(self, least: int) -> int:
        """Raises DiskError."""
        return self.journal.begin_epoch(least)

    def leader(self) -> str | None:
        """The one that is followed: heard of late, or itself."""
        if self._isLeader():
            return str(self.selfNode.id)
        return str(self._heard[0].id) if self._heard and self._hears_leader(ELECTION_MAX_S) else None

    def answered_within(self, seconds: float) -> frozenset[str]:
        """On the leader: the peers whose last answer is no older."""
        now_s = _now_s()
        answers: dict[Node, float] = self._SyncObj__lastResponseTime  # type: ignore[attr-defined]
        return frozenset(peer.id for peer, at_s in answers.items() if now_s - at_s <= seconds)

    def connected(self) -> frozenset[str]:
        peers: set[Node] = self._SyncObj__connectedNodes  # type: ignore[attr-defined]
        return frozenset(peer.id for peer in peers)

    def step_down(self) -> None:
        if self._isLeader():
            self._follow_nobody()
        self._SyncObj__setState(0)  # type: ignore[attr-defined]  # follower

    # elections

    def _begin_together(self) -> None:
        """A learner votes, and stands, when a majority of load balancers have nothing and never had."""
        if self.fresh and 2 * (1 + self.transport.fresh_peers) > len(self._members):
            self.journal.set_learner(False)
            log.info("this load balancer begins a new log", members=len(self._members))

    def _ask_before_standing(self) -> None:
        """Where the library would raise its term and stand, ask first, and let it when a majority would vote."""
        now_s = _now_s()
        if len(self._members) == 1 or self._isLeader() or self._SyncObj__raftElectionDeadline >= now_s:
            return
        if self.journal.learner or not self.journal.healthy:
            self._put_off()
        elif self._may_stand or self._SyncObj__transferInProgress:  # type: ignore[attr-defined]
            self._may_stand = False
        else:
            self._put_off()
            self._follow_nobody()
            self._canvassed = {self.selfNode.id}
            question = {"type": "canvass", **self._standing_fields()}
            for peer in sorted(self.otherNodes, key=lambda peer: str(peer.id)):
                self.transport.send(peer, question)

    def _put_off(self) -> None:
        timeout_s = self._SyncObj__generateRaftTimeout()  # type: ignore[attr-defined]
        self._SyncObj__raftElectionDeadline = _now_s() + timeout_s

    def _follow_nobody(self) -> None:
        self._heard = None
        if self._getLeader() is not None:
            self._SyncObj__raftLeader = None
            self._SyncObj__onLeaderChanged()  # type: ignore[attr-defined]

    def _hears_leader(self, within_s: float) -> bool:
        if self._isLeader():
            return True
        if self._heard is None or not self.isNodeConnected(self._heard[0]):
            return False
        return _now_s() - self._heard[1] <= within_s

    def _standing_fields(self) -> Message:
        _, index, term = self.journal[-1]
        return {"term": self.term, "last_log_term": term, "last_log_index": index}

    # transport.Owner, snapshots.Owner

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
    def applied_index(self) -> int:
        return self.raftLastApplied

    @property
    def leads(self) -> bool:
        return self._isLeader()

    @property
    def learner(self) -> bool:
        return self.journal.learner

    @property
    def fresh(self) -> bool:
        return self.journal.learner and self.term == 0 and self.journal[-1][1] == 1

    @property
    def now_s(self) -> float:
        return _now_s()

    def barrier(self) -> None:
        self.journal.barrier()

    def take_append(self, node: Node, message: Message, deliver: Callable[[Node, Message], None]) -> None:
        if message["term"] >= self.term:
            self._heard = (node, _now_s())
            self._may_stand = False
        deliver(node, message)
        if self.learner and message["term"] == self.term and self._has_all(message):
            self.journal.barrier()  # or a power cut could leave one that votes and has not all
            self.journal.set_learner(False)
            log.info("this load balancer has been filled: it votes", index=self.journal[-1][1])

    def _has_all(self, message: Message) -> bool:
        """The log holds a committed entry of the leader's own term, and so all that was ever committed before it."""
        return term_at(self, min(message["commit_index"], self.commit_index)) == self.term

    def take_answer(
        self, node: Node, message: Message, sent_s: float, deliver: Callable[[Node, Message], None]
    ) -> None:
        indexes: dict[Node, int] = self._SyncObj__raftNextIndex  # type: ignore[attr-defined]
        followed: dict[Node, float] = self._SyncObj__lastResponseTime  # type: ignore[attr-defined]
        index, at_s = indexes.get(node, 0), followed.get(node, 0.0)
        deliver(node, message)
        followed[node] = max(at_s, sent_s)
        if message["success"]:
            indexes[node] = max(index, indexes.get(node, 0))

    def take_question(self, node: Node, term: int) -> bool:
        if term != self.term or self.leads or not self.journal.healthy:
            return False
        self._heard = (node, _now_s())
        self._may_stand = False
        if not self._SyncObj__transferInProgress:  # type: ignore[attr-defined]
            self._put_off()
        return True

    def take_follower(self, node: Node, term: int, asked_s: float) -> None:
        if self.leads and term == self.term:
            followed: dict[Node, float] = self._SyncObj__lastResponseTime  # type: ignore[attr-defined]
            followed[node] = max(followed.get(node, 0.0), min(asked_s, _now_s()))

    def take_canvass(self, node: Node, message: Message) -> Message | None:
        if message["type"] == "canvass":
            candidate = Standing(message["term"], message["last_log_term"], message["last_log_index"])
            mine = Standing(**self._standing_fields(), hears_leader=self._hears_leader(HEARD_S))
            yes = would_vote(candidate, mine) and not self.learner
            return {"type": "canvass_answer", "yes": yes, "term": self.term, "asked_term": message["term"]}
        if message["term"] > self.term:
            self._SyncObj__setCurrentTerm(message["term"], None)  # type: ignore[attr-defined]
            self._SyncObj__setState(0)  # type: ignore[attr-defined]  # follower
        if message["yes"] and message["asked_term"] == self.term and not self._hears_leader(HEARD_S):
            self._canvassed.add(node.id)
            if agreed(self._canvassed, self.state.members, self._members):
                self._may_stand = True
                self._SyncObj__raftElectionDeadline = 0.0
        return None

    def wake(self) -> None:
        self._woken()

    # what the library calls

    def _SyncObj__applyLogEntries(self) -> bool:
        """Nothing is applied that a power cut could still undo: a cluster of one commits without sending anything. One
        entry after the other, while there is time; the next tick follows when others have had their turn."""
        if not self.behind:
            return False
        self.journal.barrier()
        committed, until_s = self.raftCommitIndex, _now_s() + APPLY_S
        try:
            while self.raftLastApplied < committed:
                self._SyncObj__raftCommitIndex = self.raftLastApplied + 1
                super()._SyncObj__applyLogEntries()  # type: ignore[misc]
                if _now_s() >= until_s:
                    break
        finally:
            self._SyncObj__raftCommitIndex = committed
        if self.behind:
            self._woken()
        return True

    def _SyncObj__doApplyCommand(self, entry: bytes) -> Outcome | None:
        if entry[0] != COMMAND:
            return None
        try:
            self.state, outcome = apply(self.state, self._codec.decode_command(entry[1:]), self.raftLastApplied + 1)
        except Exception as error:
            log.error("a command could not be applied and is skipped, on every load balancer alike", reason=repr(error))
            return Rejected(f"not applicable: {error!r}")
        return outcome

    def _SyncObj__parseChangeClusterRequest(self, entry: bytes) -> None:
        """Membership is the configured list; entries never change it."""

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        """Begin at a snapshot: at the start, and when one came from the leader. What the log holds behind its last
        entry was acknowledged and stays (Raft, section 7), where the library would clear it."""
        if self._snapshots.loaded is None:
            return
        state, before_last, last = self._snapshots.loaded
        position = before_last[1] - self.journal[0][1]
        if position < 0 or self.journal[position : position + 2] != [before_last, last]:
            self.journal.clear()
            self.journal.add(*before_last)
            self.journal.add(*last)
        elif position > 0:
            self.journal.deleteEntriesTo(position)
        self.state = state
        self._SyncObj__raftLastApplied = last[1]
        commit_index = max(last[1], min(self.raftCommitIndex, self.journal[-1][1]))
        self._SyncObj__raftCommitIndex = commit_index
        self.journal.setRaftCommitIndex(commit_index)


def _now_s() -> float:
    """The library's clock, which a simulation replaces."""
    return pysyncobj.syncobj.monotonicTime()


def _guarded(ended: Callable[[Outcome | None, int], None]) -> Callable[[Outcome | None, int], None]:
    def guard(outcome: Outcome | None, reason: int) -> None:
        try:
            ended(outcome, reason)
        except Exception:
            log.exception("whoever proposed a command failed to take its outcome")

    return guard
