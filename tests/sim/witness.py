"""What gale promises, checked while it runs.

The witness sees every entry that any replica applies, every message that leaves, every proposal and its end, and looks
at a machine after each of its turns. It knows no more of Raft than this:

    by index   the entry (term and command) and the state after it are the same on every replica, in every life, by log
               or by snapshot, and each replica applies each index once and in order
    by term    at most one leader, and it holds all that was committed before; nobody votes twice, not even after a
               power cut, and no term that was spoken of is forgotten
    by origin  a proposal takes effect once at most; one whose outcome was told has taken effect; each ends in time
    leaders    one that has not been in touch with a majority for 0.7 s of its own time does not say that it leads
    views      no slot names a node that is not routing or draining
"""

from collections import Counter
from typing import Any

from pysyncobj.node import Node

from gale.core.commands import Barrier, Command
from gale.core.outcome import Applied, Outcome, Rejected
from gale.core.state import ClusterState, Phase
from gale.raft import consensus
from gale.raft.replica import COMMAND, Replica
from gale.rpc.log_codec import LogCodec
from tests.sim.loop import VirtualLoop
from tests.sim.machine import Life, Machine
from tests.sim.network import Network
from tests.sim.trace import Trace, Violation

LEADER_S = 0.7
PROPOSAL_S = consensus.PROPOSAL_S + 0.15


class Witness:
    def __init__(self, network: Network, trace: Trace, machines: dict[str, Machine]) -> None:
        self.entries: dict[int, tuple[int, bytes]] = {}
        self.states: dict[int, ClusterState] = {1: ClusterState()}
        self.leaders: dict[int, str] = {}
        self.spoken: Counter[str] = Counter()  # the highest term that a machine has spoken of
        self.votes: dict[tuple[str, int], str] = {}
        self.acknowledged: Counter[Command] = Counter()
        self.proposed: Counter[Command] = Counter()
        self.effective: Counter[Command] = Counter()
        self.first: dict[Command, tuple[int, float]] = {}  # at which index it took effect, and when
        self.acked = 0
        self._origins: set[Any] = set()
        self._open: dict[Life, dict[int, tuple[float, Command]]] = {}
        self._network = network
        self._trace = trace
        self._machines = machines

    @property
    def last_index(self) -> int:
        return max(self.entries, default=1)

    # called while a machine runs

    def applied(self, machine: Machine, replica: Replica, before: ClusterState, entry: bytes, outcome: Any) -> None:
        life, index = machine.life, replica.raftLastApplied + 1
        assert life
        if index <= life.applied_index:
            raise Violation(f"{machine.address} applies index {index} again: it has applied {life.applied_index}")
        if index > life.applied_index + 1:
            self._same_state(machine, index - 1, before)
        life.applied_index = index
        self._same_entry(machine, replica, index)
        if index not in self.states:
            self._first(index, replica.state, entry, outcome, life.loop.time())
        self._same_state(machine, index, replica.state)

    def sent(self, machine: Machine, node: Node, message: dict[str, Any]) -> None:
        kind, peer = message["type"], self._machines[str(node.id)]
        if machine.shared != peer.shared and (machine.enforces or peer.enforces):
            raise Violation(
                f"{machine.address} sends {kind} to {node.id}, whose configuration differs from the one enforced"
            )
        if kind in ("request_vote", "append_entries"):
            self._spoke(machine, message["term"])
        if kind == "request_vote":
            self._voted(machine, message["term"], machine.address)
        elif kind == "response_vote":
            self._spoke(machine, message["term"])
            self._voted(machine, message["term"], str(node.id))

    def proposal_begins(self, machine: Machine, command: Command) -> int:
        assert machine.life
        self.proposed[command] += 1
        key = sum(self.proposed.values())
        self._open.setdefault(machine.life, {})[key] = (machine.life.loop.ran_s, command)
        return key

    def proposal_ends(self, machine: Machine, key: int, outcome: Outcome | None) -> None:
        """`outcome` is None when it ended with an error."""
        if machine.life and (found := self._open.get(machine.life, {}).pop(key, None)) and outcome is not None:
            self.acknowledged[found[1]] += 1
            self.acked += 1

    # called between turns

    def look(self, machine: Machine, loop: VirtualLoop) -> None:
        life, replica = machine.life, machine.replica
        if loop.failures:
            raise Violation(f"{machine.address}: {loop.failures[0]}")
        if life is None or replica is None or life.loop is not loop:
            return
        if not life.looked_at:
            life.looked_at = True
            self._booted(machine, replica)
        if replica.raftLastApplied != life.applied_index:
            self._same_state(machine, replica.raftLastApplied, replica.state)
            life.applied_index = replica.raftLastApplied
        if replica.commit_index > life.commit_index:
            for index in range(max(life.commit_index + 1, replica.journal[0][1]), replica.commit_index + 1):
                self._same_entry(machine, replica, index)
            life.commit_index = replica.commit_index
        if replica._isLeader():
            self._leads(machine, life, replica)
        for began_s, command in self._open.get(life, {}).values():
            if loop.ran_s - began_s > PROPOSAL_S:
                raise Violation(f"{machine.address}: a proposal has not ended within {PROPOSAL_S:g} s: {command}")
            break

    def finally_counted(self) -> None:
        for command, count in self.acknowledged.items():
            if self.effective[command] < count and not isinstance(command, Barrier):
                raise Violation(f"acknowledged and not in the log: {command}")
        for command, count in self.effective.items():
            if self.proposed[command] and count > self.proposed[command]:
                raise Violation(f"proposed {self.proposed[command]} times, took effect {count} times: {command}")

    # the rules

    def _first(self, index: int, state: ClusterState, entry: bytes, outcome: Any, now_s: float) -> None:
        self.states[index] = state
        self._check_slots(state)
        if entry[0] == COMMAND:
            proposal = LogCodec.decode_command(entry[1:])
            self._trace.add(f"{index}: {proposal.command} -> {type(outcome).__name__}")
            if isinstance(outcome, Applied | Rejected):
                if proposal.origin in self._origins:
                    raise Violation(f"{proposal.origin} takes effect twice, at index {index} again: {proposal.command}")
                self._origins.add(proposal.origin)
                self.effective[proposal.command] += 1
                self.first.setdefault(proposal.command, (index, now_s))

    def _same_entry(self, machine: Machine, replica: Replica, index: int) -> None:
        journal = replica.journal
        command, _, term = journal[index - journal[0][1]]
        known = self.entries.setdefault(index, (term, command))
        if known != (term, command):
            raise Violation(
                f"index {index} was committed with term {known[0]}, {machine.address} commits another of term {term}"
            )

    def _same_state(self, machine: Machine, index: int, state: ClusterState) -> None:
        known = self.states.get(index)
        if known is None:
            raise Violation(f"{machine.address} has a state of index {index}, which nobody has applied")
        if known is not state and known != state:
            raise Violation(f"{machine.address} holds another state at index {index}: {_difference(known, state)}")

    def _booted(self, machine: Machine, replica: Replica) -> None:
        """The replica is there again: its disk must know what it has said, unless it was lost."""
        if machine.lost:
            return
        if replica.term < self.spoken[machine.address]:
            raise Violation(
                f"{machine.address} spoke of term {self.spoken[machine.address]} and has {replica.term} on its disk"
            )
        vote = self.votes.get((machine.address, replica.term))
        if vote and replica.journal.getVotedForNodeId() != vote:
            raise Violation(
                f"{machine.address} voted for {vote} in term {replica.term}; its disk says"
                f" {replica.journal.getVotedForNodeId()}"
            )

    def _leads(self, machine: Machine, life: Life, replica: Replica) -> None:
        term = replica.term
        if self.leaders.setdefault(term, machine.address) != machine.address:
            raise Violation(f"{self.leaders[term]} and {machine.address} both lead term {term}")
        if life.led_term != term:
            life.led_term = term
            self._trace.add(f"leads term {term}", life.loop.time())
            self._is_complete(machine, replica)
        if self._out_of_touch_s(machine, life) > LEADER_S and machine.status().leader == machine.address:
            raise Violation(f"{machine.address} says that it leads and has been cut off for more than {LEADER_S} s")

    def _is_complete(self, machine: Machine, replica: Replica) -> None:
        """Leader completeness: all that was committed in the terms before is in its log."""
        journal = replica.journal
        first, last = journal[0][1], journal[-1][1]
        for index, (term, command) in self.entries.items():
            if (
                term < replica.term
                and index > first
                and (index > last or journal[index - first] != (command, index, term))
            ):
                raise Violation(
                    f"{machine.address} leads term {replica.term} without index {index}, which is committed"
                )

    def _out_of_touch_s(self, machine: Machine, life: Life) -> float:
        """For how long, of its own time, it has not been in touch with enough peers for a majority: heard of late, and
        where nothing reaches the peer any more, by what may still answer what did."""
        touched_s = []
        for peer in self._machines.values():
            if peer is not machine:
                at_s = life.host.heard_ran_s.get(peer.ip, 0.0)
                if self._network.is_blocked(machine.ip, peer.ip):
                    answers_s = self._network.slowest_s + peer.platter.longest_s + 0.05
                    at_s = min(at_s, life.host.reached_ran_s.get(peer.ip, 0.0) + answers_s)
                touched_s.append(at_s)
        enough = len(machine.members) // 2
        return life.loop.ran_s - sorted(touched_s, reverse=True)[enough - 1]

    def _check_slots(self, state: ClusterState) -> None:
        forwarding = {node.number for node in state.nodes.values() if node.phase in (Phase.ROUTING, Phase.DRAINING)}
        view = state.view()
        for service in view.slots:
            if stray := view.owners(service) - forwarding:
                raise Violation(f"slots of {service} name nodes {sorted(stray)}, which neither route nor drain")
        if view.nodes.keys() != forwarding:
            raise Violation(f"the view has nodes {sorted(view.nodes)}, {sorted(forwarding)} route or drain")

    def _spoke(self, machine: Machine, term: int) -> None:
        self.spoken[machine.address] = max(self.spoken[machine.address], term)

    def _voted(self, machine: Machine, term: int, candidate: str) -> None:
        if self.votes.setdefault((machine.address, term), candidate) != candidate:
            raise Violation(
                f"{machine.address} votes in term {term} for {self.votes[machine.address, term]} and for {candidate}"
            )


def _difference(one: ClusterState, other: ClusterState) -> str:
    names = [name for name in ClusterState.__slots__ if getattr(one, name) != getattr(other, name)]
    first = names[0]
    return f"{first}: {str(getattr(one, first))[:300]} and {str(getattr(other, first))[:300]}"
