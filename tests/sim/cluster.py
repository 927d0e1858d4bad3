"""One run: a cluster, its work, its faults, and at the end the question whether all is well again.

0 s        the machines start, and are filled with what the workload needs
prepared   work and faults begin
+ faults   the faults end; within 3 s everything is level, follows one leader, and commits
end        every machine commits once more, the history is checked, and what was acknowledged is counted
"""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pysyncobj.syncobj
from pysyncobj.node import Node

import gale.core.apply
import gale.raft.snapshots
import gale.raft.transport
import gale.rpc.snapshot_codec
from gale.core.commands import Barrier, Command
from gale.core.outcome import Outcome
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.errors import ConsensusError
from gale.raft.consensus import RaftConsensus
from gale.raft.replica import Replica
from gale.raft.streams import Stream
from gale.raft.transport import PeerTransport
from tests.sim.disk import Platter
from tests.sim.linear import linearizable
from tests.sim.loop import VirtualLoop, World, monotonic_s
from tests.sim.machine import Machine
from tests.sim.nemesis import PROFILES, Nemesis, Weights
from tests.sim.network import Network
from tests.sim.trace import Trace, Violation
from tests.sim.witness import Witness
from tests.sim.workload import Workload

SLOTS = 61
LEVEL_S = 3.0
PREPARE_S = 5.0
POLICY = HealthPolicy(2, checks_timeout_ms=700, black_list_after_fails=3, black_list_expiry_ms=1_500)


@dataclass(frozen=True)
class Setting:
    """What a run is like. `seconds`: how long faults happen. `entries_before_snapshot`, `append_bytes`,
    `piece_bytes`: low, so that a short run meets many snapshots, of many pieces, and many parts of a long log."""

    weights: Weights
    size: int = 3
    seconds: float = 6.0
    faults_a_second: float = 1.5
    latency_max_s: float = 0.003
    bytes_a_second: float = 1e9
    entries_before_snapshot: int | None = None
    append_bytes: int | None = None
    piece_bytes: int = 32 * 1024
    flood: int = 0
    clients_pause_s: float = 0.3
    another_configuration: bool = False

    @classmethod
    def by(cls, chance: random.Random, profile: str | None) -> "Setting":
        weights = dict(PROFILES[profile or chance.choice([*PROFILES, "all", "all"])])
        outsider = chance.random() < 0.1 and not weights.keys() & {"damage", "forget"}
        return cls(
            weights=weights,
            size=5 if chance.random() < 0.15 else 3,
            faults_a_second=chance.choice((0.7, 1.5, 3.0)),
            latency_max_s=chance.choice((0.001, 0.004, 0.02)),
            bytes_a_second=chance.choice((1e9, 1e6, 1e5)),
            entries_before_snapshot=chance.choice((None, 20, 60)),
            append_bytes=chance.choice((None, 300, 2_000)),
            piece_bytes=chance.choice((32 * 1024, 500)),
            flood=chance.choice((0, 0, 10, 60)),
            another_configuration=outsider,
        )


class Cluster:
    def __init__(self, seed: int, setting: Setting) -> None:
        def chance(what: str) -> random.Random:
            return random.Random(f"{seed} {what}")

        self.setting = setting
        self.trace = Trace()
        self.world = World()
        self.network = Network(self.world, chance("network"), setting.latency_max_s, setting.bytes_a_second)
        self.network.identified = seed % 2 == 0
        self.outside = self.world.make_loop("world")
        addresses = tuple(f"10.0.0.{number}:4321" for number in range(1, setting.size + 1))
        shared = SharedConfig(POLICY, (Service("default", 8080, 80), Service("second", 8081, 81, ("2001:db8::1",))))
        self.machines = {
            address: Machine(self.world, self.network, Platter(chance(f"disk {address}")), address, addresses)
            for address in addresses
        }
        for machine in self.machines.values():
            machine.shared = shared
            machine.entries_before_snapshot, machine.append_bytes = (
                setting.entries_before_snapshot,
                setting.append_bytes,
            )
            machine.enforces = setting.another_configuration
        if setting.another_configuration:
            self.machines[addresses[-1]].shared = replace(shared, health=replace(POLICY, checks_timeout_ms=800))
        everybody = list(self.machines.values())
        self.together = [machine for machine in everybody if machine.shared == shared]
        self.witness = Witness(self.network, self.trace, self.machines)
        self.workload = Workload(self.together, chance("work"), setting.clients_pause_s, setting.flood)
        self.nemesis = Nemesis(
            everybody, self.network, chance("faults"), self.trace, setting.weights, setting.faults_a_second
        )
        self.world.after_turn, self.world.died = self._after_turn, self._died
        self._entropy = chance("entropy")
        random.seed(f"{seed} library")

    def run(self) -> None:
        """Raises Violation."""
        self.trace.install()
        with self._in_place_of_the_real():
            try:
                self._run()
            except Violation as late:
                raise Violation(self.trace.violation or str(late)) from None
            finally:
                for machine in self.machines.values():
                    machine.kill()
                self.world.kill(self.outside)

    def _run(self) -> None:
        for machine in self.machines.values():
            machine.boot()
        prepared = self.outside.create_task(self.workload.prepare())
        self._until(prepared.done, PREPARE_S, "nothing is committed at the start")
        self.workload.start(self.outside)
        faults = self.outside.create_task(self.nemesis.run(self.setting.seconds))
        self.world.run_until(self.world.now_s + self.setting.seconds)
        self.workload.stop()
        faults.cancel()
        self.outside.call_soon(self.nemesis.end)
        self.world.run_until(self.world.now_s + 0.001)
        self._until(self._is_level, LEVEL_S, "not level again", self._how_level)
        self._all_commit()
        self._until(
            self._same_views, LEVEL_S, "not level, or not with equal maps, after the last commits", self._how_level
        )
        self._until(
            self._outsider_is_ignored, LEVEL_S, "one with another configuration is not ignored", self._how_level
        )
        self.witness.finally_counted()
        for register, history in self.workload.finished_history(self.witness.first).items():
            if not linearizable(history, 1 if register[0] == "weight" else False):
                raise Violation(f"the history of {register} is not linearizable")

    def _until(
        self, holds: Callable[[], bool], within_s: float, else_: str, how: Callable[[], str] = lambda: ""
    ) -> None:
        until_s = self.world.now_s + within_s
        while not holds():
            if self.world.now_s >= until_s:
                raise Violation(f"{else_}, within {within_s:g} s: {how()}")
            self.world.run_until(self.world.now_s + 0.01)

    def _is_level(self) -> bool:
        statuses = []
        for machine in self.together:
            consensus = machine.life and machine.life.consensus
            if not consensus or not consensus.ready:
                return False
            statuses.append(machine.status())
        one = statuses[0]
        return one.leader is not None and all(
            status.leader == one.leader
            and status.quorum
            and not status.learner
            and status.applied_index == one.applied_index == self.witness.last_index
            for status in statuses
        )

    def _how_level(self) -> str:
        return "; ".join(
            f"{machine.address}: " + (machine.life.refused or str(machine.status()) if machine.life else "down")
            for machine in self.machines.values()
        )

    def _all_commit(self) -> None:
        ended: list[str] = []
        for machine in self.together:
            machine.spawn(self._commit(machine, ended))
        self._until(lambda: len(ended) == len(self.together), LEVEL_S, "a last commit does not end")
        if any(ended):
            raise Violation(f"after the faults a commit fails: {' '.join(ended)}")

    @staticmethod
    async def _commit(machine: Machine, ended: list[str]) -> None:
        try:
            await machine.consensus.propose(Barrier(machine.clock.wall_ms()))
            ended.append("")
        except ConsensusError as error:
            ended.append(str(error))

    def _same_views(self) -> bool:
        views = [machine.life.dataplane.view for machine in self.together if machine.life]
        return self._is_level() and all((v.nodes, v.slots) == (views[0].nodes, views[0].slots) for v in views)

    def _outsider_is_ignored(self) -> bool:
        outside = [machine.status() for machine in self.machines.values() if machine not in self.together]
        return all(not status.leader and len(status.ignored) == len(self.together) for status in outside)

    # while it runs

    def _after_turn(self, loop: VirtualLoop) -> None:
        if self.trace.violation:
            raise Violation(self.trace.violation)
        machine = self.machines.get(loop.name)
        if machine is None:
            if loop.failures:
                raise Violation(f"the simulation itself: {loop.failures[0]}")
            return
        self.witness.look(machine, loop)
        life = machine.life
        if life and life.refused and not life.told:
            life.told = True
            self._refused(machine)
        elif life and life.ended:
            self.trace.add(f"{machine.address} has stopped", self.world.now_s)
            machine.kill()
            self.outside.call_soon(self.nemesis.ended, machine)

    def _refused(self, machine: Machine) -> None:
        """It would not start: right if its disk refuses to work, or has lost what it had promised; then it is emptied,
        as the refusal says."""
        assert machine.life
        self.trace.add(f"{machine.address} does not start: {machine.life.refused}", self.world.now_s)
        if machine.life.because_of_disk:
            machine.kill()
        elif machine.lost:
            machine.kill()
            machine.platter.wipe()
        else:
            raise Violation(f"{machine.address} does not start: {machine.life.refused}")
        self.outside.call_soon(self.nemesis.ended, machine)

    def _died(self, loop: VirtualLoop) -> None:
        machine = self.machines[loop.name]
        self.trace.add(f"{machine.address} dies in the middle of a write", self.world.now_s)
        if machine.platter.chance.random() < 0.7:
            machine.cut_power()
        else:
            machine.kill()
        self.outside.call_soon(self.nemesis.ended, machine)

    @contextmanager
    def _in_place_of_the_real(self) -> Iterator[None]:
        """The library's clock, poller and pipe, entropy, fewer slots; and the witness at its places."""
        witness = self.witness
        send, write = PeerTransport.send, gale.raft.transport._write
        gathered: dict[int, tuple[bytes, Node, dict[str, Any]]] = {}
        apply, propose = Replica._SyncObj__doApplyCommand, RaftConsensus.propose

        def applied(replica: Replica, entry: bytes) -> Any:
            before = replica.state
            outcome = apply(replica, entry)
            with self.trace.noting():
                witness.applied(_machine(), replica, before, entry, outcome)
            return outcome

        def sent(transport: PeerTransport, node: Node, message: dict[str, Any]) -> bool:
            if done := send(transport, node, message):
                frame = transport._gathered[-1][1]
                gathered[id(frame)] = (frame, node, message)
            return done

        def written(stream: Stream, frame: bytes) -> None:
            """Only now has it been said: a process that ends before the sync has said nothing."""
            write(stream, frame)
            if id(frame) in gathered:
                _, node, message = gathered.pop(id(frame))
                with self.trace.noting():
                    witness.sent(_machine(), node, message)

        async def proposed(consensus: RaftConsensus, command: Command) -> Outcome:
            machine = _machine()
            key, outcome = witness.proposal_begins(machine, command), None
            try:
                outcome = await propose(consensus, command)
            finally:
                witness.proposal_ends(machine, key, outcome)
            return outcome

        with (
            mock.patch.object(pysyncobj.syncobj, "monotonicTime", monotonic_s),
            mock.patch.object(pysyncobj.syncobj, "PIPE_NOTIFIER_ENABLED", False),
            mock.patch.object(pysyncobj.syncobj, "createPoller", return_value=SimpleNamespace(poll=_nothing)),
            mock.patch.object(os, "urandom", self._entropy.randbytes),
            mock.patch.object(gale.core.apply, "SLOTS", SLOTS),
            mock.patch.object(gale.raft.snapshots, "PART_BYTES", self.setting.piece_bytes),
            mock.patch.object(gale.rpc.snapshot_codec, "PIECE_BYTES", self.setting.piece_bytes),
            mock.patch.object(Replica, "_SyncObj__doApplyCommand", applied),
            mock.patch.object(PeerTransport, "send", sent),
            mock.patch.object(gale.raft.transport, "_write", written),
            mock.patch.object(RaftConsensus, "propose", proposed),
        ):
            yield


def _nothing(timeout_s: float) -> None:
    """Nobody has a socket."""


def _machine() -> Machine:
    machine: Machine = asyncio.get_running_loop().machine  # type: ignore[attr-defined]
    return machine
