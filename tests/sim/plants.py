"""Planted faults: what would be wrong with gale if one of its rules were missing, and how soon the simulation says so.

Each is planted in the process that runs it and nowhere else, and comes with the setting in which it is looked for: the
faults that bring it out, and a number of runs within which a violation must be found (tests/sim/test_teeth.py).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock
from zlib import crc32

import gale.core.apply
import gale.raft.replica
import gale.raft.transport
from gale.core.commands import Barrier, Command, Proposal
from gale.core.hello import Judgement
from gale.core.outcome import Applied, Outcome
from gale.core.slots import SlotTable, rebalance
from gale.core.state import ClusterState
from gale.raft import rules
from gale.raft.consensus import RaftConsensus
from gale.raft.journal import Journal
from gale.raft.replica import Replica
from gale.raft.rules import Link, Log, Message
from gale.raft.transport import Peer, PeerTransport
from tests.sim.cluster import Setting
from tests.sim.disk import SimDisk
from tests.sim.nemesis import PROFILES

Patches = Iterable[AbstractContextManager[Any]]


@dataclass(frozen=True)
class Plant:
    """`runs`: a violation is found within so many."""

    what: str
    patches: Callable[[], Patches]
    setting: Setting
    runs: int


def late_answers() -> Patches:
    """Rule 1: an answer to an append of an earlier leadership counts."""
    yield mock.patch.object(gale.raft.transport, "takes_answer", lambda message, link, log: log.leads)


def back_and_forth() -> Patches:
    """Rule 2: a back-off that is old news, or a success, moves the next index backwards."""

    def takes_answer(message: Message, link: Link, log: Log) -> bool:
        return log.leads and message["answers"][1] == log.term

    def take_answer(
        replica: Replica, node: Any, message: Message, sent_s: float, deliver: Callable[[Any, Message], None]
    ) -> None:
        deliver(node, message)

    yield mock.patch.object(gale.raft.transport, "takes_answer", takes_answer)
    yield mock.patch.object(Replica, "take_answer", take_answer)


def cutting_what_matches() -> Patches:
    """Rule 3: the library gets to see entries the follower has, and cuts its log before them; it backs off by one."""

    def incoming_append(message: Message, link: Link, log: Log) -> tuple[Message, Message | None]:
        link.answering = (message["sequence"], message["term"])
        if message.get("prevLogIdx") is None:
            message = {**message, "commit_index": min(message["commit_index"], log.commit_index)}
        return message, None

    def outgoing(message: Message, link: Link, log: Log) -> Message:
        stamped = rules.outgoing(message, link, log)
        return {**stamped, **message} if message["type"] == "next_node_idx" else stamped

    yield mock.patch.object(gale.raft.transport, "incoming_append", incoming_append)
    yield mock.patch.object(gale.raft.transport, "outgoing", outgoing)


def _raising_the_commit_index(kind: str) -> Patches:
    def incoming_append(message: Message, link: Link, log: Log) -> tuple[Message, Message | None]:
        seen, answer = rules.incoming_append(message, link, log)
        if (kind == "snapshot") == ("serialized" in message) and "prevLogIdx" not in seen:
            seen = {**seen, "commit_index": message["commit_index"]}
        return seen, answer

    yield mock.patch.object(gale.raft.transport, "incoming_append", incoming_append)


def commit_by_snapshot() -> Patches:
    """Rule 4: a part of a snapshot raises the commit index over entries that were not compared."""
    return _raising_the_commit_index("snapshot")


def commit_by_heartbeat() -> Patches:
    """Rule 4: a bare heartbeat does."""
    return _raising_the_commit_index("heartbeat")


def forgotten_vote() -> Patches:
    """Term and vote are written and not synced before the answer leaves."""

    def store_meta(journal: Journal) -> None:
        with mock.patch.object(SimDisk, "_sync"), mock.patch.object(SimDisk, "sync_names"):
            original(journal)

    original = Journal._store_meta
    yield mock.patch.object(Journal, "_store_meta", store_meta)


def hasty_acknowledgement() -> Patches:
    """Entries are acknowledged before they are on the disk."""
    yield mock.patch.object(Journal, "barrier", Journal._settle_vote)


def applied_twice() -> Patches:
    """Whoever proposed a command fails to take its outcome, and nobody catches that."""

    def guarded(ended: Callable[[Outcome | None, int], None]) -> Callable[[Outcome | None, int], None]:
        def end(outcome: Outcome | None, reason: int) -> None:
            ended(outcome, reason)
            raise RuntimeError("cannot take it")

        return end

    yield mock.patch.object(gale.raft.replica, "_guarded", guarded)


def vote_counted_twice() -> Patches:
    """Of five, three must vote; here two are enough."""
    original = PeerTransport._deliver

    def deliver(transport: PeerTransport, peer: Peer, message: Message) -> None:
        original(transport, peer, message)
        if message["type"] == "response_vote":
            original(transport, peer, message)

    yield mock.patch.object(PeerTransport, "_deliver", deliver)


def clock_in_apply() -> Patches:
    """What is applied depends on the wall clock of the machine that applies it."""
    original = gale.core.apply.apply

    def apply(state: ClusterState, proposal: Proposal) -> tuple[ClusterState, Outcome]:
        now_ms = asyncio.get_running_loop().machine.clock.wall_ms()  # type: ignore[attr-defined]
        return original(state, replace(proposal, command=replace(proposal.command, time_ms=now_ms)))

    yield mock.patch.object(gale.raft.replica, "apply", apply)


def slots_in_set_order() -> Patches:
    """Who of two equal nodes gets which slots depends on the order of a set, which every process has its own of."""

    def in_set_order(table: SlotTable, weights: Mapping[int, int]) -> SlotTable:
        table = rebalance(table, weights)
        address = asyncio.get_running_loop().machine.address  # type: ignore[attr-defined]
        if len(weights) < 2 or crc32(address.encode()) % 2:
            return table
        one, other, *_ = weights
        owners = [{one: other, other: one}.get(owner, owner) for owner in memoryview(table.owners).cast("H")]
        return replace(table, owners=b"".join(owner.to_bytes(2, "little") for owner in owners))

    yield mock.patch.object(gale.core.apply, "rebalance", in_set_order)


def configuration_unchecked() -> Patches:
    """A load balancer with another configuration is talked to, though a single one is enforced."""
    yield mock.patch.object(gale.raft.transport, "judge", return_value=Judgement())


def voting_without_a_log() -> Patches:
    """A replica that has lost its log votes at once."""
    yield mock.patch.object(Replica, "learner", property(lambda replica: False))
    yield mock.patch.object(Journal, "learner", property(lambda journal: False))


def leading_alone() -> Patches:
    """A leader that hears from nobody goes on leading."""
    original = Replica.__init__

    def init(replica: Replica, *arguments: Any, **named: Any) -> None:
        original(replica, *arguments, **named)
        replica.conf.leaderFallbackTimeout = 30.0  # type: ignore[attr-defined]

    yield mock.patch.object(Replica, "__init__", init)


def repeated_commands() -> Patches:
    """A proposal that is handed in again takes effect again."""
    yield mock.patch.object(gale.core.apply, "stale", return_value=None)


def local_reads() -> Patches:
    """A strong read does not go through the log."""
    original = RaftConsensus.propose

    async def propose(consensus: RaftConsensus, command: Command) -> Outcome:
        return Applied() if isinstance(command, Barrier) else await original(consensus, command)

    yield mock.patch.object(RaftConsensus, "propose", propose)


NETWORK = PROFILES["network"]
LEADERS = {"isolate": 4, "cut": 2, "kill": 1}
BUSY = Setting(
    LEADERS, seconds=5.0, faults_a_second=3.0, append_bytes=300, flood=60, latency_max_s=0.02, bytes_a_second=5e4
)

PLANTS: dict[str, Plant] = {
    plant.patches.__name__.replace("_", "-"): plant
    for plant in (
        Plant("rule 1 off", late_answers, Setting({"late_answers": 1}, size=5, seconds=3.0), 10),
        Plant("rule 2 off", back_and_forth, replace(BUSY, weights={"isolate": 2, "flap": 2}, bytes_a_second=3e4), 40),
        Plant("rule 3 off", cutting_what_matches, replace(BUSY, weights={"tail": 2, "squeeze": 1}), 30),
        Plant("rule 4 off for heartbeats", commit_by_heartbeat, replace(BUSY, weights={"tail": 1}), 20),
        Plant(
            "snapshots raise the commit index",
            commit_by_snapshot,
            replace(BUSY, weights={"tail": 1}, entries_before_snapshot=20),
            20,
        ),
        Plant("the vote is not synced", forgotten_vote, Setting({"power": 1, "power_all": 1}, faults_a_second=3.0), 10),
        Plant("acknowledged before written", hasty_acknowledgement, Setting({"power_all": 1}), 10),
        Plant("applied twice", applied_twice, Setting(NETWORK, seconds=2.0), 3),
        Plant(
            "a vote counts twice",
            vote_counted_twice,
            Setting({"power": 1}, size=5, seconds=5.0, latency_max_s=0.1, clients_pause_s=2.0),
            15,
        ),
        Plant("time read in apply", clock_in_apply, Setting({"jump_clock": 1}, seconds=2.0), 3),
        Plant("slot tables in the order of a set", slots_in_set_order, Setting(NETWORK, seconds=2.0), 3),
        Plant(
            "the configuration is not checked",
            configuration_unchecked,
            Setting(NETWORK, seconds=1.0, another_configuration=True),
            3,
        ),
        Plant(
            "votes without a log",
            voting_without_a_log,
            Setting({"forget": 1}),
            5,
        ),
        Plant("leads alone", leading_alone, Setting({"isolate": 1, "isolate_one_way": 1}), 5),
        Plant("commands take effect twice", repeated_commands, Setting(LEADERS, faults_a_second=3.0), 10),
        Plant("strong reads are local", local_reads, Setting(LEADERS, faults_a_second=3.0, clients_pause_s=0.1), 10),
    )
}
