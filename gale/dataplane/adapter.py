"""The kernel side of one load balancer: performs the writes of a plan (gale/core/plan.py) on the maps.

What a view does not say is added here, because it differs between load balancers: how a node is reached (reach.py). A
node whose next hop is not known yet is written at once, without it; packets for it are counted as `no_neighbour` until
the answer is there. From `attach` on, changes are followed as the kernel tells them, by the event loop that `attach`
was called in.
"""

import asyncio
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from gale.core.plan import ClearNode, SetNode, SetSlots, Write
from gale.dataplane import jiffies
from gale.dataplane.address import packed
from gale.dataplane.attach import Attachment
from gale.dataplane.counters import counters, verdicts
from gale.dataplane.explain import explain, explainers
from gale.dataplane.farewell import Destination, Farewell
from gale.dataplane.flows import Flows
from gale.dataplane.hop import LINKS, NO_HOP, NO_LINK, Hop
from gale.dataplane.links import Places, interface_index
from gale.dataplane.neighbours import Way, told
from gale.dataplane.program import Program
from gale.dataplane.reach import Reach
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.dataplane.strays import Strays, Sweeper
from gale.dataplane.takeover import Start
from gale.errors import DataplaneError
from gale.ports import Counters, Explanation, Question, Reached

log = structlog.get_logger()

PAUSE_S = 0.003
"""Between two slices of work, for everything else."""
CHANGES_MAX = 20
_MTU_MAX = 0xFFFF


class BpfDataplane:
    """Loads on construction, forwards from `attach` on. Raises HostError or DataplaneError.

    The maps start empty: perform the writes for the present view before attaching.
    """

    def __init__(self, settings: DataplaneSettings) -> None:
        self._settings = settings
        self._started = Start(settings)
        self._maps, self._program = self._started.maps, self._started.program
        self._public = interface_index(settings.public_interface)
        self._reach = Reach(self._write_node)
        self._places = Places(self._public, self._maps.set_link, lambda index: self._reach.link(index) is not None)
        self._addresses: dict[int, tuple[str, str]] = {}
        self._explainers: Program | None = None
        self._explaining = asyncio.Lock()
        self._farewell: Farewell | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self._said: set[str] = set()
        self.attachment: Attachment | None = None
        if "l4" in self._maps.directory.modes:
            returns = self._program.maps["returns"]
            self._farewell = Farewell(returns, settings.public_interface, self._birth, self._destinations)
        self._strays = Strays(self._program.maps["strays"], self._maps, settings.services, self._birth)
        self._sweeper = Sweeper(self._strays, self._maps)
        self.flows = Flows(
            self._program,
            settings,
            lambda: self._maps.directory,
            self._birth,
            self._addresses.__getitem__,
            self._farewell,
            self._strays,
        )

    def close(self) -> None:
        """The programs stay attached and go on forwarding."""
        if self._next:
            self._next.cancel()
        if self._loop:
            self._loop.remove_reader(self._reach.monitor.fileno())
        self._reach.close()
        if self._farewell:
            self._farewell.close()

    def attach(self) -> None:
        """Programs of an earlier gale-lb are replaced atomically. `attachment` then says what came of it."""
        self.attachment = self._started.attach()
        self._strays.attached_at = jiffies.now()
        self._reach.set_native(self.attachment.public_mode == "native")
        for number in self._started.left_behind():
            self.farewell(number)
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # nobody listens: `refresh_neighbours` does all the work
        self._loop.add_reader(self._reach.monitor.fileno(), self._heard)
        self._turn()

    def unprepared(self, heard: Container[str]) -> str:
        """What to wait for before `attach`, while an earlier start's programs forward; empty if nothing."""
        if not self._started.replaces:
            return ""
        if self.unreachable:
            return f"{len(self.unreachable)} nodes cannot be reached"
        missing = [address for address, _ in self._addresses.values() if address not in heard]
        return f"{len(missing)} nodes have not checked in" if self._started.nodes_prepare and missing else ""

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """What nodes are told of: also what was, while its connections go on."""
        return self._settings.listeners + self._maps.directory.direct(self._settings.services)

    @property
    def attachments(self) -> Mapping[str, str]:
        """Interface -> how its program is attached: "native", "generic" or "tc"; empty before `attach`."""
        return self.attachment.interfaces if self.attachment else {}

    def perform(self, write: Write) -> None:
        """Do one write of a plan. Raises DataplaneError; then nothing has changed."""
        match write:
            case SetNode(number, address, address6):
                if self._addresses.get(number, (address, ""))[0] != address:
                    traffic = self._program.maps["node_traffic"]
                    traffic.update(number, bytes(traffic.value_size))
                self._reach.put(number, address, address6)
                self._addresses[number] = address, address6
            case SetSlots(service, owners):
                self._maps.set_slots(service, owners)
            case ClearNode(number):
                self._maps.clear_node(number)
                self._reach.clear(number)

    def verdicts(self) -> Mapping[str, int]:
        """Packets per verdict since the maps were made."""
        return verdicts(self._program.maps)

    async def counters(self) -> Counters:
        """What was counted since the maps were made."""
        counted = await counters(self._program.maps, self._settings.services, self._addresses)
        return replace(counted, moved=self._maps.moved_slots())

    async def explain(self, question: Question) -> Explanation:
        """Run the program on such a packet, over the maps as they are, without leaving a trace: the first time in
        seconds. Raises DataplaneError when it cannot be asked."""
        async with self._explaining:
            if self._explainers is None:
                self._explainers = await asyncio.to_thread(explainers, self._program)
        answer = explain(self._explainers, self._settings, question, self._own_mac() + bytes(6))
        return replace(answer, interface=self._leaves_by(answer))

    def verify(self) -> tuple[str, ...]:
        """Compare what the kernel holds with what was written, and mend it: one line for each difference."""
        return self._started.verify()

    def farewell(self, number: int) -> None:
        """Make the TCP clients of a node that lost this number notice (l4): their flows have no node any more."""
        if self._farewell:
            self._farewell.add(number)
            self._later()

    def ways(self, number: int) -> tuple[Way, ...]:
        """To a node: by IPv4, and by IPv6 if it has such an address."""
        return self._reach.ways(number)

    def reached(self, number: int) -> tuple[Reached, ...]:
        """How each address of a node is reached; empty when there is no such node."""
        ways = zip(self._reach.addresses(number), self._reach.ways(number), strict=True)
        return tuple(told(address, way) for address, way in ways)

    @property
    def unreachable(self) -> tuple[int, ...]:
        """Numbers of the nodes that cannot be reached by some address of theirs."""
        return tuple(self._reach.closed)

    def refresh_neighbours(self) -> tuple[object, ...]:
        """Ask the kernel again for some of the nodes, and make it verify their MAC addresses. Gives what has changed
        since the last call, whoever noticed; of very many changes only how many there are."""
        self._reach.listen()
        self._reach.sweep()
        self._work()
        self._say_if(
            "no room for neighbours",
            self._reach.neighbours_full,
            "the kernel has no room for more neighbours: raise net.ipv4.neigh.default.gc_thresh3 above the number of"
            " nodes, and likewise for IPv6",
        )
        changes = self._reach.changes()
        rest = len(changes) - CHANGES_MAX
        return (*changes[:CHANGES_MAX], f"and {rest} more") if rest > 0 else changes

    # the loop

    def _heard(self) -> None:
        self._reach.listen()
        self._turn()

    def _turn(self) -> None:
        self._next = None
        with suppress(DataplaneError):  # `refresh_neighbours` meets it in a second, and its caller says so
            self._work()

    def _work(self) -> None:
        """A slice of what there is to do; the loop does the rest."""
        left = self._reach.work() | self._sweeper.work()
        if self._farewell:
            try:
                left |= self._farewell.work()
            except OSError as error:
                raise DataplaneError(f"{self._settings.public_interface}: cannot send: {error.strerror}") from error
        if left:
            self._later()

    def _later(self) -> None:
        if self._loop and not self._next:
            self._next = self._loop.call_later(PAUSE_S, self._turn)

    # entries of the maps

    def _write_node(self, number: int, address: str, address6: str, way: Way, way6: Way) -> None:
        self._maps.set_node(number, address, address6, self._hop(way), self._hop(way6))

    def _hop(self, way: Way) -> Hop:
        if not way.open or way.mac is None:
            return NO_HOP
        place = self._places.place(way.out)
        self._say_if(
            f"no place for {way.interface}",
            place == NO_LINK,
            f"{way.interface}: nodes behind it cannot be reached: gale sends out of {LINKS - 1} interfaces at most",
        )
        if place == NO_LINK:
            return NO_HOP
        return Hop(way.mac + way.interface_mac, place, way.vlan, min(way.mtu, _MTU_MAX), way.on_link)

    def _birth(self, number: int) -> int | None:
        entry = self._program.maps["nodes"][number]
        return int(entry.birth) if entry.address else None

    def _destinations(self) -> dict[int, Destination]:
        entries = self._maps.directory.entries
        return {number: Destination(packed(entry.address), entry.port) for number, entry in entries.items()}

    def _own_mac(self) -> bytes:
        link = self._reach.link(self._public)
        return link.mac if link and link.mac else bytes(6)

    def _leaves_by(self, answer: Explanation) -> str:
        """The interface, by its name. A bridged packet takes the way that is open, whatever it is itself."""
        if not answer.headers:
            return ""
        if answer.side == "private" or answer.action == "reply" or answer.node is None:
            return self._settings.public_interface
        ways = self._reach.ways(answer.node)
        if answer.mode == "l2":
            ways = tuple(way for way in ways if way.open)
        elif next(header.name for header in answer.headers if header.name in ("ipv4", "ipv6")) == "ipv6":
            ways = ways[-1:]
        return ways[0].interface if ways else ""

    def _say_if(self, what: str, is_so: bool, text: str) -> None:
        """Once, until it is no longer so."""
        if is_so and what not in self._said:
            log.warning(text)
        (self._said.add if is_so else self._said.discard)(what)
