"""Nodes that move, change and go, under flows of real sockets; and starts and ends of the programs."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from gale.dataplane.adapter import BpfDataplane
from gale.dataplane.reach import WayChange
from tests.packet import needs
from tests.packet.live import (
    SETTINGS4,
    SIDES,
    WEB,
    WEB_ON_NODES,
    exchange,
    give_node,
    loaded,
    moved,
    reachable,
    take_node,
)
from tests.packet.network import NODE, NODE6, PRIVATE, PUBLIC, PUBLIC6, Network, eventually, namespace, network

MAC = "02:00:00:00:00:99"
_MACS = itertools.count(1)
FOLLOWED_S = 8.0
NOTICED_S = 4.0

pytestmark = [needs.NAMESPACES, needs.ETHTOOL]


@pytest.fixture
def net(shared_net: Network) -> Network:
    return shared_net


@pytest.fixture
def dataplane(net: Network, shared: BpfDataplane) -> BpfDataplane:
    """Attached, with one node that owns every slot."""
    with namespace(net.balancer):
        give_node(shared)
        eventually(lambda: reachable(shared))
    return shared


@pytest.mark.parametrize("service", [PUBLIC, PUBLIC6])
def test_a_flow_goes_on_when_its_node_changes_its_mac(net: Network, dataplane: BpfDataplane, service: str) -> None:
    """The kernel learns it when the node speaks; `refresh_neighbours` takes it over and says so."""
    with net.listen(WEB_ON_NODES, address=SIDES[service][0]) as listening, net.connect(WEB, address=service) as client:
        node, _ = listening.accept()
        mac = next_mac()
        net.ip(net.node, "link", "set", "eth0", "address", mac)
        with node, net.datagrams(net.node, SIDES[service][0]) as speaking:
            speaking.sendto(b"hello", (SIDES[service][1], 9))
            changes = list[object]()

            def told() -> bool:
                changes.extend(dataplane.refresh_neighbours())
                return bool(changes)

            eventually(told, FOLLOWED_S)
            client.sendall(b"x")
            node.settimeout(5)
            assert node.recv(1) == b"x"
    assert isinstance(changes[0], WayChange)
    assert changes[0].after.mac == bytes.fromhex(mac.replace(":", ""))


def next_mac() -> str:
    """One that no other test gives."""
    return f"02:00:00:00:01:{next(_MACS):02x}"


def has(changes: list[object], more: Iterable[object]) -> bool:
    changes += more
    return bool(changes)


def test_a_forgotten_mac_stays_good(net: Network, dataplane: BpfDataplane) -> None:
    net.ip(net.balancer, "neigh", "flush", "dev", "private")
    assert dataplane.refresh_neighbours() == ()
    exchange(net, b"x")


def test_a_flow_goes_on_when_the_route_moves_to_another_interface(net: Network, dataplane: BpfDataplane) -> None:
    net.cable("private2", ("10.0.2.1",), net.node, "eth1", ("10.0.2.11",))
    with net.listen(WEB_ON_NODES) as listening, net.connect(WEB) as client, listening.accept()[0] as node:
        net.ip(net.balancer, "route", "add", f"{NODE}/32", "via", "10.0.2.11", "dev", "private2", "src", PRIVATE)
        with namespace(net.balancer):  # interfaces have other numbers elsewhere
            eventually(lambda: reaches_by(dataplane, "private2"), FOLLOWED_S)
        node.settimeout(5)
        client.sendall(b"x")
        assert node.recv(1) == b"x"
        node.sendall(b"y")
        assert client.recv(1) == b"y"
        net.ip(net.balancer, "link", "del", "private2")


def reaches_by(dataplane: BpfDataplane, interface: str) -> bool:
    dataplane.refresh_neighbours()
    return not dataplane.unreachable and all(way.interface == interface for way in dataplane.ways(1)[:1])


@pytest.fixture
async def followed(bpf: None) -> AsyncIterator[tuple[Network, BpfDataplane]]:
    """Attached in the event loop, which follows what happens: nobody calls anything."""
    with network() as net:
        dataplane = loaded(net, SETTINGS4)
        with namespace(net.balancer):
            dataplane.attach()
        yield net, dataplane
        dataplane.close()


async def test_the_loop_follows_by_itself(followed: tuple[Network, BpfDataplane]) -> None:
    """A MAC, a route, an interface."""
    net, dataplane = followed

    async def follows(condition: Callable[[], bool], *command: str) -> None:
        net.ip(net.balancer, *command)
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < FOLLOWED_S, command
            await asyncio.sleep(0.005)

    def way(index: int = 0) -> str:
        return str(dataplane.ways(1)[index])

    learned = ("lladdr", MAC, "dev", "private", "nud", "reachable")
    await follows(lambda: MAC in way(), "neigh", "replace", NODE, *learned)
    await follows(lambda: MAC in way(1), "neigh", "replace", NODE6, *learned)
    await follows(lambda: way() == "there is no route", "route", "add", "blackhole", f"{NODE}/32")
    await follows(lambda: way().startswith("directly"), "route", "del", "blackhole", f"{NODE}/32")
    await follows(lambda: way() == way(1) == "there is no route", "link", "set", "private", "down")


@pytest.mark.parametrize("service", [PUBLIC, PUBLIC6])
def test_a_client_that_only_waits_notices_that_its_node_is_gone(
    net: Network, dataplane: BpfDataplane, service: str
) -> None:
    with (
        net.listen(WEB_ON_NODES, address=SIDES[service][0]) as listening,
        net.connect(WEB, address=service) as client,
        listening.accept()[0] as node,
    ):
        node.sendall(b"x")
        assert client.recv(1) == b"x"
        client.settimeout(NOTICED_S)
        take_node(dataplane)
        dataplane.farewell(1)
        dataplane.refresh_neighbours()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


async def test_the_loop_takes_leave_by_itself(followed: tuple[Network, BpfDataplane]) -> None:
    """Of many clients, and of nobody who has another node."""
    net, dataplane = followed
    with net.listen(WEB_ON_NODES) as listening:
        clients = [net.connect(WEB) for _ in range(50)]
        accepted = [listening.accept()[0] for _ in clients]
        before = dataplane.verdicts()
        dataplane.farewell(1)  # the number is in use: nobody is told anything
        await asyncio.sleep(0.2)
        assert "node_gone" not in moved(dataplane, before)
        take_node(dataplane)
        dataplane.farewell(1)
        begin = time.monotonic()
        for client in clients:
            client.setblocking(False)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), NOTICED_S)
        assert time.monotonic() - begin < NOTICED_S
        for end in (*clients, *accepted):
            end.close()
