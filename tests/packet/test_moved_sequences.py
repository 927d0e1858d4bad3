"""Whatever happens to slots and nodes, in whatever order: who sends something once a minute stays where it is."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.packet.direct import CLIENT6, L2, L3_6, SLOTS, VIP6, Direct, Node, Way
from tests.packet.moving import NODES, Client, Moving
from tests.packet.oracle import slot
from tests.packet.packets import CLIENT, VIP

STEPS = 250
QUIET_AT_MOST_S = 45
PORTS = range(40000, 40040)


@dataclass
class Flow:
    """An established connection. `heard_s`: when its client last sent something."""

    client: Client
    home: Node
    heard_s: float


class Story:
    """What happens, by chance; `flows` by their client's port."""

    def __init__(self, moving: Moving, way: Way, version: int) -> None:
        self.moving, self.way, self.version = moving, way, version
        self.now_s = 0.0
        self.flows: dict[int, Flow] = {}
        self.alive = list(NODES)
        self.owners: list[Node | None] = list(NODES)
        self.stayed = 0
        moving.own(self.owners)

    def step(self) -> None:
        acts: dict[Callable[[], None], int] = {
            self.send: 12,
            self.open: 6,
            self.forge: 3,
            self.end: 2,
            self.wait: 3,
            self.move: 3,
            self.restart: 1,
            self.moving.sweep: 1,
            self.die: 1,
            self.come_back: 1,
        }
        random.choices(list(acts), list(acts.values()))[0]()

    def owner(self, port: int) -> Node | None:
        client, address = {4: (CLIENT, VIP), 6: (CLIENT6, VIP6)}[self.version]
        return self.owners[slot(client, port, address, self.way.dport, SLOTS) % len(self.owners)]

    def send(self) -> None:
        if self.flows:
            self.must_stay(random.choice(list(self.flows.values())))

    def must_stay(self, flow: Flow) -> None:
        assert self.moving.sent(flow.client.packet()) is flow.home, f"{flow} at {self.now_s}"
        flow.heard_s = self.now_s
        self.stayed += flow.home is not self.owner(flow.client.port)

    def open(self) -> None:
        """Also at a port that had a connection before: without an end, as when the client's machine was restarted."""
        port, begins = random.choice(PORTS), random.randrange(1 << 32)
        client = Client(self.way, self.version, port)
        before = self.flows.get(port)
        if before and (begins - before.client.number) % (1 << 32) < 1 << 16:
            return
        owner = self.owner(port)
        assert self.moving.sent(client.opening(begins)) is owner
        if owner:
            assert self.moving.sent(client.packet()) is owner
            self.flows[port] = Flow(client, owner, self.now_s)

    def forge(self) -> None:
        """Somebody sends a SYN in the name of a client, and cannot know its numbers."""
        port = random.choice(PORTS)
        known = self.flows[port].client.number if port in self.flows else 0
        forged = Client(self.way, self.version, port)
        assert self.moving.sent(forged.opening(known + (1 << 31))) is self.owner(port)

    def end(self) -> None:
        if self.flows:
            flow = self.flows.pop(random.choice(list(self.flows)))
            assert self.moving.sent(flow.client.packet(random.choice(("FA", "R")))) is flow.home

    def wait(self) -> None:
        seconds = random.choice((1, 20, QUIET_AT_MOST_S))
        for flow in list(self.flows.values()):
            if self.now_s + seconds - flow.heard_s > QUIET_AT_MOST_S:
                self.must_stay(flow)
        self.moving.later(seconds)
        self.now_s += seconds

    def _choose(self) -> None:
        some: list[Node | None] = [node for node in self.alive if random.random() < 0.7]
        self.owners = random.sample(some, len(some)) or [None]

    def move(self) -> None:
        """Nodes are added, drained, weighted otherwise: those that own nothing are there all the same."""
        self._choose()
        self.moving.own(self.owners)

    def restart(self) -> None:
        self._choose()
        self.moving.restart(self.owners, self.alive)

    def die(self) -> None:
        if len(self.alive) < len(NODES):
            return
        gone = self.alive.pop(random.randrange(len(self.alive)))
        self.move()
        self.moving.maps.clear_node(gone.number)
        lost = [port for port, flow in self.flows.items() if flow.home is gone]
        for port in lost:
            assert self.moving.sent(self.flows.pop(port).client.packet()) is self.owner(port)

    def come_back(self) -> None:
        for node in NODES:
            if node not in self.alive:
                self.moving.set_node(node)
                self.alive.append(node)


@pytest.mark.parametrize(("way", "version"), [(L2, 4), (L3_6, 6)])
def test_connections_stay_and_new_ones_go_to_the_owner(direct: Direct, way: Way, version: int) -> None:
    story = Story(Moving(direct), way, version)
    for _ in range(STEPS):
        story.step()
        assert story.moving.maps.verify() == ()
    assert story.stayed > STEPS / 20, "nothing would have moved"
