"""One simulated load balancer: the real consensus, wire, journal and controller, over virtual everything else.

A machine has lives. Each begins with `boot` over what the disk kept, and ends with `kill` (the process: the kernel
still has what it wrote), `cut_power` (only what was synced is sure), or `stop` (as SIGTERM does, handing leadership
over).
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import gale
from gale.controller import Controller
from gale.core.commands import Announce
from gale.core.hello import Hello
from gale.core.shared import SharedConfig
from gale.core.state import ClusterState, NodeInfo
from gale.errors import GaleError
from gale.log import Refusals
from gale.memory import MemoryDataplane
from gale.ports import ConsensusStatus
from gale.raft.consensus import RaftConsensus
from gale.raft.disk import DiskError
from gale.raft.replica import Replica
from gale.rpc.log_codec import LogCodec
from tests.sim.disk import Platter, SimDisk
from tests.sim.loop import VirtualLoop, World
from tests.sim.network import Host, Network

EPOCH_MS = 1_800_000_000_000


class SimClock:
    """The machine's clocks. The wall clock is off by `offset_ms`, which outlives the process."""

    def __init__(self, world: World) -> None:
        self.loop: VirtualLoop | None = None
        self.offset_ms = 0
        self._world = world

    def monotonic_ms(self) -> int:
        return int((self.loop.time() if self.loop else self._world.now_s) * 1_000)

    def wall_ms(self) -> int:
        return EPOCH_MS + self.monotonic_ms() + self.offset_ms


class Life:
    """From one boot to the next end. What is in here is gone with it."""

    def __init__(self, loop: VirtualLoop, host: Host, disk: SimDisk, services: Iterable[str]) -> None:
        self.loop = loop
        self.host = host
        self.disk = disk
        self.consensus: RaftConsensus | None = None
        self.controller: Controller | None = None
        self.dataplane = MemoryDataplane(services)
        self.refused = ""  # why it would not start
        self.stopping = False
        self.looked_at = False
        self.applied_index = 1  # what the witness has seen of this life
        self.commit_index = 1
        self.state: ClusterState | None = None
        self.led_term = 0
        self.because_of_disk = False  # which is full, or broke
        self.told = False  # that it was refused
        self.ended = False  # the process has stopped as it was told to


class Machine:
    def __init__(
        self, world: World, network: Network, platter: Platter, address: str, members: tuple[str, ...]
    ) -> None:
        self.world = world
        self.network = network
        self.platter = platter
        self.address = address
        self.ip = address.rpartition(":")[0]
        self.members = members
        self.shared = SharedConfig()
        self.enforces = False
        self.clock = SimClock(world)
        self.entries_before_snapshot: int | None = None
        self.append_bytes: int | None = None
        self.life: Life | None = None
        self.lost = False  # its disk lost what it had promised

    @property
    def replica(self) -> Replica | None:
        return self.life.consensus._replica if self.life and self.life.consensus else None

    @property
    def consensus(self) -> RaftConsensus:
        """Of a machine that runs."""
        if self.life is None or self.life.consensus is None:
            raise RuntimeError(f"{self.address} does not run")
        return self.life.consensus

    def status(self) -> ConsensusStatus:
        """Of a machine that runs."""
        consensus = self.consensus
        assert self.life
        status: ConsensusStatus = self.life.loop.ask(consensus.status)
        return status

    def boot(self) -> None:
        if self.life:
            return
        loop = self.world.make_loop(self.address)
        host = self.network.attach(self.address, loop)
        self.platter.spend, self.platter.now_s = loop.spend, loop.time
        self.clock.loop = loop
        self.life = Life(loop, host, SimDisk(self.platter, f"/state/{self.ip}"), self._services())
        loop.machine = self  # type: ignore[attr-defined]
        loop.create_task(self._live(self.life))

    def kill(self) -> None:
        self._end(silently=False)

    def cut_power(self) -> None:
        if self._end(silently=True):
            self.platter.cut_power()

    def stop(self) -> None:
        """As SIGTERM does; the process ends when it is done."""
        if self.life and self.life.consensus and not self.life.stopping:
            self.life.stopping = True
            self.spawn(self._stop(self.life, self.life.consensus))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something on this machine, if it runs."""
        if self.life:
            self.life.loop.create_task(work)
        else:
            work.close()

    def take_check(self, info: NodeInfo, serving: bool) -> None:
        """A node's check arrives."""
        if self.life and self.life.controller:
            self.life.controller.check(info, serving)

    def take_goodbye(self, info: NodeInfo) -> None:
        if self.life and self.life.controller:
            self.spawn(self.life.controller.goodbye(info))

    def _services(self) -> tuple[str, ...]:
        return tuple(service.name for service in self.shared.services)

    def _end(self, silently: bool) -> bool:
        life, self.life = self.life, None
        if life is None:
            return False
        life.disk.cut_off()
        self.platter.dies_in = None
        self.network.detach(life.host, silently)
        self.world.kill(life.loop)
        self.clock.loop = None
        return True

    async def _live(self, life: Life) -> None:
        hello = Hello(self.address, self.members, self.shared, self.enforces)
        me = Announce(
            time_ms=0,
            load_balancer=self.address,
            api=f"{self.ip}:5555",
            version=gale.__version__,
            shared=self.shared,
            enforces=self.enforces,
            leads=False,
            members=self.members,
        )
        try:
            consensus = RaftConsensus(hello, life.disk, LogCodec(), life.host, self.clock, Refusals("refused"))
            conf: Any = consensus._replica.conf  # type: ignore[attr-defined]
            conf.logCompactionMinEntries = self.entries_before_snapshot or conf.logCompactionMinEntries
            conf.appendEntriesBatchSizeBytes = self.append_bytes or conf.appendEntriesBatchSizeBytes
            life.consensus = consensus
            life.controller = Controller(me, consensus, life.dataplane, self.clock)
            await consensus.start(changed=life.controller.wake)
        except GaleError as error:
            life.refused, life.because_of_disk = str(error), isinstance(error, DiskError)
            return
        await life.controller.run()

    async def _stop(self, life: Life, consensus: RaftConsensus) -> None:
        await consensus.stop()
        asyncio.get_running_loop().call_soon(self._stopped, life)

    def _stopped(self, life: Life) -> None:
        life.ended = True
