"""The parts of the simulation: virtual time, a disk that loses power, a network that loses links."""

import asyncio
import random

import pytest

from gale.raft.disk import DiskError
from tests.sim.disk import Platter, SimDisk
from tests.sim.loop import VirtualLoop, World
from tests.sim.network import Host, Network


def times(world: World, loop: VirtualLoop, every_s: float, count: int) -> list[float]:
    """When a timer of this machine rang."""
    rang: list[float] = []

    async def ring() -> None:
        for _ in range(count):
            await asyncio.sleep(every_s)
            rang.append(loop.time())

    loop.create_task(ring())
    return rang


def test_time_passes_without_taking_any() -> None:
    world = World()
    loop = world.make_loop("a")
    rang = times(world, loop, 100.0, 3)
    world.run_until(250.0)
    assert rang == pytest.approx([100.0, 200.0], abs=0.001)
    assert world.now_s == 250.0
    loop.kill()


def test_a_paused_machine_finds_its_timers_overdue() -> None:
    world = World()
    loop, other = world.make_loop("a"), world.make_loop("b")
    rang, elsewhere = times(world, loop, 0.02, 100), times(world, other, 0.02, 100)
    world.run_until(0.1)
    loop.pause(1.0)
    world.run_until(1.5)
    assert [s for s in rang if 0.1 < s < 1.01] == pytest.approx([1.0], abs=0.001)
    assert len([s for s in elsewhere if 0.1 < s < 1.0]) > 40
    assert other.ran_s == pytest.approx(1.5, abs=0.05)
    assert loop.ran_s == pytest.approx(0.6, abs=0.1)
    loop.kill()
    other.kill()


def test_what_takes_time_holds_up_its_machine_only() -> None:
    world = World()
    loop, other = world.make_loop("a"), world.make_loop("b")
    seen: list[float] = []
    loop.call_at(1.0, loop.spend, 0.5)
    loop.call_at(1.1, lambda: seen.append(loop.time()))
    other.call_at(1.2, lambda: seen.append(other.time()))
    world.run_until(2.0)
    assert seen == pytest.approx([1.2, 1.5], abs=0.001)
    loop.kill()
    other.kill()


def test_a_killed_machine_does_nothing_more() -> None:
    world = World()
    loop = world.make_loop("a")
    done: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10.0)
        finally:
            loop.call_soon(done.append, "cleaned up")

    loop.create_task(work())
    world.run_until(1.0)
    world.kill(loop)
    world.run_until(20.0)
    assert not done
    assert not loop.failures


def disk_with(content: bytes) -> tuple[Platter, SimDisk]:
    platter = Platter(random.Random(1))
    disk = SimDisk(platter, "/state")
    disk.replace("journal", content)
    return platter, disk


def test_a_power_cut_keeps_what_was_synced_and_a_kill_what_was_written() -> None:
    platter, disk = disk_with(b"synced.")
    disk.write("journal", 7, b"x" * 5_000)
    assert SimDisk(platter, "/state").read("journal") == b"synced." + b"x" * 5_000
    disk.write("journal", 7, b"y" * 5_000)
    platter.cut_power()
    left = SimDisk(platter, "/state").read("journal")
    assert left is not None
    assert left.startswith(b"synced.")
    assert left != b"synced." + b"y" * 5_000


def test_a_name_that_was_not_synced_may_be_lost() -> None:
    found = set()
    for seed in range(20):
        platter = Platter(random.Random(seed))
        platter.create("journal").write(0, b"x")
        platter.cut_power()
        found.add(platter.file("journal") is None)
    assert found == {True, False}


def test_a_full_disk_refuses_and_a_broken_sync_is_not_forgotten() -> None:
    platter, disk = disk_with(b"")
    platter.full = True
    with pytest.raises(DiskError, match="No space"):
        disk.write("journal", 0, b"x" * 100)
    platter.full, platter.breaks = False, True
    disk.write("journal", 0, b"x" * 100)
    with pytest.raises(DiskError, match="Input/output"):
        disk.sync("journal")
    with pytest.raises(DiskError, match="a sync failed"):
        disk.write("journal", 0, b"x")
    assert disk.distrusted


class Pair:
    """Two machines with a connection, and what the second one got."""

    def __init__(self) -> None:
        self.world = World()
        self.network = Network(self.world, random.Random(1), latency_max_s=0.001, bytes_a_second=1e9)
        self.a, self.b = (self.network.attach(f"10.0.0.{n}:1", self.world.make_loop(str(n))) for n in (1, 2))
        self.got: list[object] = []
        self.b.loop.create_task(self.b.serve(self._take, self._hear))
        self.a.loop.create_task(self._dial())
        self.world.run_until(0.1)

    def _hear(self, address: str, datagram: bytes) -> None:
        self.got.append((address, datagram))

    async def _take(self, stream: object) -> None:
        try:
            while True:
                self.got.append(await stream.read(4))  # type: ignore[attr-defined]
        except OSError as error:
            self.got.append(type(error))

    async def _dial(self) -> None:
        self.stream = await self.a.dial("10.0.0.2:1")

    def say(self, what: bytes) -> None:
        self.a.loop.call_soon(self.stream.write, what)
        self.world.run_until(self.world.now_s + 0.3)

    def end(self) -> None:
        for host in (self.a, self.b):
            host.loop.kill()


def test_a_block_holds_back_and_loses_nothing() -> None:
    pair = Pair()
    pair.say(b"one.")
    pair.network.block(("10.0.0.1", "10.0.0.2"))
    pair.say(b"two.")
    pair.say(b"six.")
    assert pair.got == [b"one."]
    assert pair.stream.unsent == 8
    pair.network.unblock(("10.0.0.1", "10.0.0.2"))
    pair.say(b"ten.")
    assert pair.got == [b"one.", b"two.", b"six.", b"ten."]
    pair.end()


@pytest.mark.parametrize("silently", [False, True])
def test_a_machine_that_ends(silently: bool) -> None:
    """Killed, it resets its connections; without power it says nothing, until it is back."""
    pair = Pair()
    pair.say(b"one.")
    pair.network.detach(pair.a, silently)
    pair.world.run_until(1.0)
    assert pair.got == ([b"one."] if silently else [b"one.", ConnectionResetError])
    pair.network.attach("10.0.0.1:1", pair.world.make_loop("again"))
    pair.world.run_until(2.0)
    assert pair.got == [b"one.", ConnectionResetError]
    pair.end()


def test_nobody_answers_behind_a_block_and_nobody_listens_is_refused() -> None:
    pair = Pair()
    errors: list[object] = []

    async def dial(host: Host, address: str) -> None:
        try:
            await host.dial(address)
        except OSError as error:
            errors.append((type(error), round(host.loop.time(), 1)))

    pair.network.block(("10.0.0.2", "10.0.0.1"))
    pair.a.loop.create_task(dial(pair.a, "10.0.0.2:1"))
    pair.world.run_until(1.0)
    pair.network.heal()
    pair.b.loop.create_task(dial(pair.b, "10.0.0.1:1"))
    pair.world.run_until(2.0)
    assert errors == [(TimeoutError, 0.6), (ConnectionRefusedError, 1.0)]
    pair.end()
