"""What the cluster is asked to do while things go wrong.

nodes      check in with every load balancer, fail, come back, say goodbye
operators  drain and undrain them
clients    write and read registers through each load balancer, and their calls and returns are the history whose
           linearizability is checked. A register is something of a node that commands set and anybody can read:
           its weight (a number no write repeats), and whether it is drained. A read is a barrier, and then the
           local state. The nodes that carry registers never pass a check too many, so nothing else changes them.
floods     many proposals at once, from proposers of their own: a log with a long tail that is not committed
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from gale.core.commands import Barrier, Command, Drain, Origin, Passed, Proposal, Report
from gale.core.outcome import Applied
from gale.core.state import ClusterState, NodeInfo
from gale.errors import ConsensusError
from tests.sim.linear import NEVER_S, Operation
from tests.sim.machine import Machine

CHECK_S = 0.25
REGISTERS = 2
Register = tuple[str, str]  # what, of which node


class Workload:
    def __init__(self, machines: list[Machine], chance: random.Random, clients_pause_s: float, flood: int) -> None:
        self.history: dict[Register, list[Operation]] = defaultdict(list)
        self.running = True
        self.floods = 0
        self._unknown: dict[Command, tuple[Register, Operation]] = {}
        self._drains: set[Command] = set()
        self._machines = machines
        self._chance = chance
        self._pause_s = clients_pause_s
        self._flood = flood
        self._weight = 1  # the last one written
        self._written: dict[tuple[Register, Command], Operation] = {}
        self._agents = [
            NodeInfo(f"n{n}", f"10.2.0.{n}", reports_to=len(machines), address6=f"fd00::{n}" if n > 1 else "")
            for n in range(1, 4)
        ]
        self._serving = {agent.id: True for agent in self._agents}

    # on the loop that stands for the rest of the world

    async def prepare(self) -> None:
        """Every register gets its first value."""
        await asyncio.sleep(0.1)
        for number in range(REGISTERS):
            while self._read(("weight", f"r{number}")) is None:
                for machine in self._machines:
                    machine.spawn(self._settle(machine, self._weigh(machine, number, 1)))
                await asyncio.sleep(0.2)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        for agent in self._agents:
            loop.create_task(self._agent(agent))
        for machine in self._machines:
            for ask in (self._write_weight, self._write_drained, self._read_some):
                loop.create_task(self._client(machine, ask))
        loop.create_task(self._operator())
        if self._flood:
            loop.create_task(self._flooder())

    def stop(self) -> None:
        self.running = False

    def finished_history(self, applied: Mapping[Command, tuple[int, float]]) -> dict[Register, list[Operation]]:
        """`applied`: at which index a command took effect, and when it was first applied by anybody. What returned
        with an error, or never, has happened by then; what is not in the log never happens."""
        for command, (register, operation) in self._unknown.items():
            if command in applied:
                self._written[register, command] = replace(operation, returned_s=applied[command][1])
        for (register, command), operation in self._written.items():
            place = applied.get(command, (0, 0.0))[0]
            self.history[register].append(replace(operation, place=place))
        return self.history

    async def _agent(self, agent: NodeInfo) -> None:
        """One node; it goes on checking in when the clients are done."""
        while True:
            fate = self._chance.random()
            if self.running and fate < 0.02:
                await asyncio.sleep(self._chance.uniform(0.5, 2.0))  # it is down
            elif self.running and fate < 0.03:
                self._send(lambda machine: machine.take_goodbye(agent))
                await asyncio.sleep(self._chance.uniform(0.2, 1.0))
            elif self.running and fate < 0.04:
                self._serving[agent.id] = not self._serving[agent.id]
            elif not self.running:
                self._serving[agent.id] = True
            self._send(lambda machine: machine.take_check(agent, self._serving[agent.id]))
            await asyncio.sleep(CHECK_S)

    def _send(self, take: Callable[[Machine], None]) -> None:
        now_s = asyncio.get_running_loop().time()
        for machine in self._machines:
            if machine.life:
                machine.life.loop.call_at(now_s + self._chance.uniform(0.0, 0.005), take, machine)

    async def _operator(self) -> None:
        while self.running:
            await asyncio.sleep(self._chance.expovariate(1.0))
            machine, agent = self._chance.choice(self._machines), self._chance.choice(self._agents)
            order = Drain(machine.clock.wall_ms(), agent.id, self._chance.random() < 0.5)
            machine.spawn(self._settle(machine, order))

    async def _client(self, machine: Machine, ask: Callable[[Machine], None]) -> None:
        while self.running:
            await asyncio.sleep(self._chance.expovariate(1 / self._pause_s))
            if machine.life and machine.life.consensus and not machine.life.stopping and self.running:
                ask(machine)

    async def _flooder(self) -> None:
        while self.running:
            await asyncio.sleep(self._chance.expovariate(2.0))
            machine = self._chance.choice(self._machines)
            self.floods += 1
            machine.spawn(pour(machine, f"flood {self.floods}", self._chance.randint(1, self._flood), self._chance))

    # on the machine

    def _write_weight(self, machine: Machine) -> None:
        number = self._chance.randrange(REGISTERS)
        self._weight += 1
        order = self._weigh(machine, number, self._weight)
        machine.spawn(self._write(machine, ("weight", f"r{number}"), self._weight, order))

    def _write_drained(self, machine: Machine) -> None:
        name, on = f"r{self._chance.randrange(REGISTERS)}", self._chance.random() < 0.5
        order = Drain(machine.clock.wall_ms(), name, on)
        while order in self._drains:  # each is to be found again in the log
            order = replace(order, time_ms=order.time_ms + 1)
        self._drains.add(order)
        machine.spawn(self._write(machine, ("drained", name), on, order))

    def _read_some(self, machine: Machine) -> None:
        what, name = self._chance.choice(("weight", "drained")), f"r{self._chance.randrange(REGISTERS)}"
        machine.spawn(self._read_strongly(machine, (what, name)))

    def _weigh(self, machine: Machine, number: int, weight: int) -> Command:
        info = NodeInfo(f"r{number}", f"10.3.0.{number}", weight, reports_to=len(self._machines))
        return Report(machine.clock.wall_ms(), machine.address, (Passed(info, 1),))

    async def _write(self, machine: Machine, register: Register, value: object, command: Command) -> None:
        loop = asyncio.get_running_loop()
        operation = Operation(loop.time(), NEVER_S, True, value)
        self._unknown[command] = (register, operation)
        try:
            outcome = await machine.consensus.propose(command)
        except ConsensusError:
            return
        del self._unknown[command]
        if isinstance(outcome, Applied) and not outcome.refusals:
            self._written[register, command] = replace(operation, returned_s=loop.time())

    async def _read_strongly(self, machine: Machine, register: Register) -> None:
        loop = asyncio.get_running_loop()
        called_s, consensus = loop.time(), machine.consensus
        try:
            await consensus.propose(Barrier(machine.clock.wall_ms()))
        except ConsensusError:
            return
        place, value = consensus.status().applied_index + 0.5, self._value(consensus.state, register)
        self.history[register].append(Operation(called_s, loop.time(), False, value, place))

    async def _settle(self, machine: Machine, command: Command) -> None:
        with suppress(ConsensusError):
            await machine.consensus.propose(command)

    def _read(self, register: Register) -> object:
        """For preparing: None until every machine has it."""
        values = [self._value(machine.consensus.state, register) for machine in self._machines]
        return None if None in values else values[0]

    @staticmethod
    def _value(state: ClusterState, register: Register) -> object:
        what, name = register
        if (node := state.nodes.get(name)) is None:
            return None
        return node.info.weight if what == "weight" else node.drained


async def pour(machine: Machine, name: str, count: int, chance: random.Random) -> None:
    """Many proposals at once, from a proposer of their own."""
    replica = machine.replica
    if replica is None:
        return
    for sequence in range(1, count + 1):
        node = "x" * chance.choice((1, 60))  # nobody's name: the command is rejected, and is an entry all the same
        proposal = Proposal(Origin(name, 1, sequence), Drain(machine.clock.wall_ms(), node, True))
        replica.submit(proposal, lambda outcome, reason: None)
    replica.wake()
