"""Everything that can go wrong, by seed. A profile says how likely each fault is; several may be under way at once.

Two limits keep what gale promises possible: at most a minority of the machines loses what its disk had promised (a
damaged or missing snapshot, log or directory), once in a run; and the faults end, all of them, some time before the
run does.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping

from pysyncobj.node import Node

from tests.sim.machine import Machine
from tests.sim.network import Network
from tests.sim.trace import Trace
from tests.sim.workload import pour

STORIES = ("squeeze", "tail", "forget", "late_answers")
Weights = Mapping[str, float]

PROFILES: dict[str, Weights] = {
    "network": {
        "flap": 4,
        "cut": 2,
        "cut_one_way": 2,
        "isolate": 3,
        "isolate_one_way": 2,
        "slow_link": 2,
        "lossy": 1,
        "storm": 1,
        "squeeze": 1,
        "late_answers": 0.5,
    },
    "crash": {"kill": 3, "power": 4, "power_all": 1, "kill_all": 0.5, "dies_writing": 3, "stop": 1, "flap": 1},
    "disk": {
        "slow_disk": 2,
        "full_disk": 3,
        "broken_disk": 1,
        "power": 3,
        "power_all": 0.5,
        "dies_writing": 2,
        "isolate": 1,
    },
    "pauses": {"pause": 5, "pause_all": 0.5, "jump_clock": 2, "isolate": 1, "kill": 1, "slow_disk": 1},
    "losses": {"damage": 2, "forget": 1, "power": 2, "kill": 1, "isolate": 2, "flap": 1, "power_all": 0.5},
    "hand over": {"stop": 4, "isolate": 1, "power": 1, "slow_link": 2, "flap": 1},
}
PROFILES["all"] = {
    fault: sum(weights.get(fault, 0) for weights in PROFILES.values())
    for fault in sorted({fault for weights in PROFILES.values() for fault in weights})
}


class Nemesis:
    """Runs on the loop that stands for the rest of the world. `rate`: faults a second."""

    def __init__(
        self,
        machines: list[Machine],
        network: Network,
        chance: random.Random,
        trace: Trace,
        weights: Weights,
        rate: float,
    ) -> None:
        self._ends_s = 0.0
        self.damaged: Machine | None = None
        self._machines = machines
        self._network = network
        self._chance = chance
        self._trace = trace
        self._faults = list(weights)
        self._weights = list(weights.values())
        self._rate = rate
        self._tasks: set[asyncio.Task[None]] = set()
        self._telling: asyncio.Task[None] | None = None
        self._over = False
        self.floods = 0

    async def run(self, seconds: float) -> None:
        self._ends_s = asyncio.get_running_loop().time() + seconds
        while not self._over:
            await asyncio.sleep(self._chance.expovariate(self._rate))
            if not self._over:
                self.do(self._chance.choices(self._faults, self._weights)[0])

    def do(self, fault: str) -> None:
        """Stories are told one at a time."""
        if fault in STORIES:
            if self._telling and not self._telling.done():
                return
            self._telling = asyncio.get_running_loop().create_task(getattr(self, f"_{fault}")())
            return
        task = asyncio.get_running_loop().create_task(getattr(self, f"_{fault}")())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self) -> None:
        """All faults end: links pass, disks are well, everything runs."""
        self._over = True
        for task in [*self._tasks, *([self._telling] if self._telling else [])]:
            task.cancel()
        self._network.heal()
        for machine in self._machines:
            platter = machine.platter
            sick = machine.life and machine.life.disk.distrusted
            platter.full, platter.breaks, platter.dies_in = False, False, None
            if sick or (machine.life and (machine.life.refused or machine.life.stopping)):
                machine.kill()
            if machine.life:
                machine.life.loop.resume()
            machine.clock.offset_ms = 0
            machine.boot()
        self._say("all faults end")

    def ended(self, machine: Machine) -> None:
        """A machine's process has ended by itself, or must: an operator sees to it."""
        self._later(self._chance.uniform(0.1, 1.0), machine.boot)

    # links

    async def _flap(self) -> None:
        one, other = self._pair()
        self._say("flap", one, other)
        self._network.flap(one.ip, other.ip)

    async def _storm(self) -> None:
        """A link that does not hold."""
        one, other = self._pair()
        self._say("storm", one, other)
        for _ in range(self._chance.randint(3, 8)):
            self._network.flap(one.ip, other.ip)
            await asyncio.sleep(self._chance.uniform(0.05, 0.4))

    async def _cut(self) -> None:
        one, other = self._pair()
        await self._block("cut", both(one, [other]))

    async def _cut_one_way(self) -> None:
        one, other = self._pair()
        await self._block("cut one way", both(one, [other])[:1])

    async def _isolate(self) -> None:
        one = self._someone()
        await self._block("isolate", both(one, self._others(one)))

    async def _isolate_one_way(self) -> None:
        one, way = self._someone(), self._chance.randint(0, 1)
        await self._block("isolate one way", both(one, self._others(one))[way::2])

    async def _slow_link(self) -> None:
        one, other = self._pair()
        self._say("slow", one, other)
        self._network.slow((one.ip, other.ip), self._chance.uniform(0.02, 0.4))
        await asyncio.sleep(self._chance.uniform(0.3, 3.0))
        self._network.slow((one.ip, other.ip), 0.0)

    async def _lossy(self) -> None:
        """Packets are lost, on all links."""
        share = self._chance.uniform(0.05, 0.4)
        self._say(f"{share:.0%} are lost")
        links = [(one.ip, other.ip) for one, other in itertools.permutations(self._machines, 2)]
        for link in links:
            self._network.lose(link, share)
        await asyncio.sleep(self._chance.uniform(0.3, 3.0))
        for link in links:
            self._network.lose(link, 0.0)

    async def _block(self, what: str, links: list[tuple[str, str]]) -> None:
        self._trace.add(f"{what} {' '.join(f'{source}>{to}' for source, to in links)}")
        self._network.block(*links)
        await asyncio.sleep(self._chance.uniform(0.2, 2.5))
        self._network.unblock(*links)
        self._trace.add(f"{what} ends")

    # machines

    async def _kill(self) -> None:
        await self._end_some("kill", [self._someone()], Machine.kill)

    async def _kill_all(self) -> None:
        await self._end_some("kill", self._machines, Machine.kill)

    async def _power(self) -> None:
        await self._end_some("power cut", [self._someone()], Machine.cut_power)

    async def _power_all(self) -> None:
        await self._end_some("power cut", self._machines, Machine.cut_power)

    async def _stop(self) -> None:
        one = self._someone()
        self._say("stop", one)
        one.stop()

    async def _dies_writing(self) -> None:
        """In the middle of what it does with its disk."""
        one = self._someone()
        if one.life:
            self._say("dies soon", one)
            one.platter.dies_in = self._chance.randint(1, 12)

    async def _pause(self) -> None:
        self._stand_still([self._someone()])

    async def _pause_all(self) -> None:
        self._stand_still(self._machines)

    async def _jump_clock(self) -> None:
        one = self._someone()
        one.clock.offset_ms = self._chance.randint(-300_000, 300_000)
        self._say(f"clock off by {one.clock.offset_ms} ms", one)

    def _stand_still(self, machines: list[Machine]) -> None:
        for machine in machines:
            if machine.life:
                seconds = self._chance.uniform(0.3, 1.5)
                self._say(f"pause {seconds:.2f} s", machine)
                machine.life.loop.pause(asyncio.get_running_loop().time() + seconds)

    async def _end_some(self, what: str, machines: list[Machine], end: Callable[[Machine], object]) -> None:
        self._say(what, *machines)
        for machine in machines:
            end(machine)
        for machine in machines:
            self._later(self._chance.uniform(0.05, 1.5), machine.boot)

    # disks

    async def _slow_disk(self) -> None:
        one = self._someone()
        one.platter.slow_s = self._chance.choice((0.02, 0.1, 0.4))
        self._say(f"slow disk {one.platter.slow_s}", one)
        until_s = asyncio.get_running_loop().time() + self._chance.uniform(0.3, 2.0)
        one.platter.slow_until_s = min(until_s, self._ends_s)

    async def _full_disk(self) -> None:
        one = self._someone()
        self._say("disk full", one)
        one.platter.full = True
        await asyncio.sleep(self._chance.uniform(0.2, 2.0))
        one.platter.full = False
        self._say("disk no longer full", one)

    async def _broken_disk(self) -> None:
        """A sync fails, once. The process goes on without a disk until somebody starts it again."""
        one = self._someone()
        self._say("a sync fails", one)
        one.platter.breaks = True
        await asyncio.sleep(self._chance.uniform(0.5, 1.5))
        one.platter.breaks = False
        if one.life and one.life.disk.distrusted:
            one.kill()
            one.boot()

    async def _damage(self) -> None:
        """What the disk had promised is gone or wrong, on one machine of the run."""
        if self.damaged:
            return
        one = self._someone()
        self._lose(one, self._chance.choice(("snapshot", "snapshot", "directory", "journal", "meta")))
        self._later(self._chance.uniform(0.05, 1.0), one.boot)

    # stories: rare by chance, and worth telling often

    async def _squeeze(self) -> None:
        """One follower is behind, the link to the other flaps, and then the leader is lost: what that other follower
        acknowledged must still be there."""
        leader = self._leader()
        if leader is None:
            return
        near, far = self._chance.sample(self._others(leader), 2)
        behind = both(far, [leader, near])
        self._say("squeeze", leader, near)
        self._network.block(*behind)
        await asyncio.sleep(self._chance.uniform(0.2, 0.5))
        self._network.flap(leader.ip, near.ip)
        await asyncio.sleep(self._chance.uniform(0.05, 0.4))
        lost = both(leader, self._others(leader))
        self._network.block(*lost)
        self._network.flap(leader.ip, near.ip)
        self._network.unblock(*behind)
        await asyncio.sleep(1.5)
        self._network.unblock(*lost)

    async def _tail(self) -> None:
        """A leader is cut off in the middle of a flood, and what of it went nowhere must give way to what others decide
        meanwhile."""
        leader = self._leader()
        if leader is None:
            return
        self._say("tail", leader)
        self._pour(leader, 60)
        await asyncio.sleep(self._chance.uniform(0.01, 0.2))
        cut = both(leader, self._others(leader))
        self._network.block(*cut)
        if other := await self._wait_for(lambda: next((m for m in self._others(leader) if _leads(m)), None), 1.5):
            self._pour(other, 20)
        await asyncio.sleep(self._chance.uniform(0.1, 0.6))
        self._network.unblock(*cut)

    async def _forget(self) -> None:
        """One follower is behind, the other loses its directory, and then the leader is lost: the two that are left
        must not elect one of them, because what was committed is with the leader alone."""
        leader = self._leader()
        if leader is None or self.damaged:
            return
        near, far = self._chance.sample(self._others(leader), 2)
        self.damaged = near
        behind, lost = both(far, [leader, near]), both(leader, self._others(leader))
        self._network.block(*behind)
        await asyncio.sleep(self._chance.uniform(0.3, 0.6))
        self._network.block(*lost)
        self._lose(near, "directory")
        await asyncio.sleep(0.05)
        near.boot()
        self._network.unblock(*behind)
        await asyncio.sleep(1.5)
        self._network.unblock(*lost)

    async def _late_answers(self) -> None:
        """Of five: a leader is cut off with one follower, whose answers are late. Others elect another one, which cuts
        that follower's log; the first leads again, and now the late answers arrive. With them it must not count."""
        leader = self._leader()
        if leader is None or len(self._machines) < 5:
            return
        slow, near, *others = self._chance.sample(self._others(leader), 4)
        self._say("late answers", leader, slow, near)
        away = both(leader, [near, *others])
        self._network.slow((slow.ip, leader.ip), self._chance.uniform(0.7, 0.95))
        self._network.block(*away)
        self._pour(leader, 60)
        other = await self._wait_for(lambda: next((m for m in [near, *others] if _leads(m)), None), 0.8)
        self._network.unblock(*away)
        if other and await self._wait_for(lambda: self._moves(other, leader), 0.5):
            self._say("leads again", leader)
            apart = [*both(leader, others), *both(near, [slow, *others]), (leader.ip, slow.ip)]
            self._network.block(*apart)
            self._pour(leader, 50)
            await asyncio.sleep(1.5)
            self._network.unblock(*apart)
        self._network.slow((slow.ip, leader.ip), 0.0)

    def _moves(self, leader: Machine, to: Machine) -> Machine | None:
        """Hand leadership over, as a stop does; tried until it has come to pass."""
        if leader.life and leader.replica and leader.replica._isLeader():
            hand_over: Callable[[Node], None] = leader.replica.transferLeadership  # type: ignore[assignment]
            leader.life.loop.call_soon(hand_over, Node(to.address))
            if to.replica and to.replica._isLeader() and to.replica.term > leader.replica.term:
                return to
        return to if _leads(to) and not _leads(leader) else None

    def _pour(self, machine: Machine, count: int) -> None:
        self.floods += 1
        machine.spawn(pour(machine, f"story {self.floods}", count, self._chance))

    async def _wait_for(self, found: Callable[[], Machine | None], seconds: float) -> Machine | None:
        for _ in range(int(seconds / 0.005)):
            if machine := found():
                return machine
            await asyncio.sleep(0.005)
        return None

    def _leader(self) -> Machine | None:
        return next((machine for machine in self._machines if _leads(machine)), None)

    def _lose(self, one: Machine, what: str) -> None:
        self._say(f"damage of {what}", one)
        self.damaged, one.lost = one, True
        one.kill()
        if what == "directory":
            one.platter.wipe()
        else:
            one.platter.damage(what)

    # whom it meets

    def _someone(self) -> Machine:
        """The leader more often than not."""
        leaders = [machine for machine in self._machines if machine.replica and machine.replica._isLeader()]
        return self._chance.choice(leaders if leaders and self._chance.random() < 0.5 else self._machines)

    def _others(self, one: Machine) -> list[Machine]:
        return [machine for machine in self._machines if machine is not one]

    def _pair(self) -> tuple[Machine, Machine]:
        one = self._someone()
        return one, self._chance.choice(self._others(one))

    def _later(self, seconds: float, do: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, do)

    def _say(self, what: str, *machines: Machine) -> None:
        self._trace.add(f"{what} {' '.join(machine.ip for machine in machines)}")


def _leads(machine: Machine) -> bool:
    return machine.replica is not None and machine.replica._isLeader()


def both(one: Machine, others: list[Machine]) -> list[tuple[str, str]]:
    """The links between them, in both directions: to, from, to, from, ..."""
    return [link for other in others for link in ((one.ip, other.ip), (other.ip, one.ip))]
