"""How nodes are reached, and that changes are followed: neighbours, routes and interfaces of real namespaces."""

from collections.abc import Iterator

import pytest

from gale.dataplane.monitor import BUFFER, Monitor
from gale.dataplane.neighbours import Way
from gale.dataplane.reach import Reach
from tests.packet import needs
from tests.packet.network import NODE, NODE6, PRIVATE, Network, eventually, namespace, network, run

WITHIN_S = 8.0
MANY = 5_000
MAC = "02:00:00:00:00:99"

pytestmark = [needs.NAMESPACES, needs.ETHTOOL]


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net:
        yield net


class Node:
    """One node, number 1, and the ways last written for it. `buffer`: of the socket that listens."""

    def __init__(self, net: Network, buffer: int = BUFFER) -> None:
        self.written: dict[int, tuple[Way, Way]] = {}
        with namespace(net.balancer):
            self.reach = Reach(self._write, Monitor(buffer))
            self.reach.put(1, NODE, NODE6)

    def _write(self, number: int, _: str, __: str, way: Way, way6: Way) -> None:
        self.written[number] = way, way6

    @property
    def way(self) -> Way:
        """Once what the kernel has said is done."""
        self.reach.listen()
        self.reach.work()
        return self.written[1][0]

    @property
    def way6(self) -> Way:
        assert self.way
        return self.written[1][1]


@pytest.fixture
def node(net: Network) -> Iterator[Node]:
    """Reached."""
    node = Node(net)
    eventually(lambda: node.way.open and node.way6.open, WITHIN_S)
    yield node
    node.reach.close()


def mac(net: Network, where: str, interface: str) -> bytes:
    text = net.ip(where, "-br", "link", "show", interface).split()[2]
    return bytes.fromhex(text.replace(":", ""))


def test_both_versions_are_found_without_anybody_else_asking(net: Network, node: Node) -> None:
    for way in (node.way, node.way6):
        assert way.mac == mac(net, net.node, "eth0")
        assert way.interface_mac == mac(net, net.balancer, "private")
        assert (way.interface, way.vlan, way.mtu, way.on_link) == ("private", 0, 1500, True)
    assert not node.reach.closed


@pytest.mark.parametrize("address", [NODE, NODE6])
def test_a_neighbour_with_another_mac(net: Network, node: Node, address: str) -> None:
    net.ip(net.balancer, "neigh", "replace", address, "lladdr", MAC, "dev", "private", "nud", "reachable")
    eventually(
        lambda: (node.way if address == NODE else node.way6).mac == bytes.fromhex(MAC.replace(":", "")), WITHIN_S
    )


def test_a_node_that_changes_its_mac_is_noticed_when_it_speaks(net: Network, node: Node) -> None:
    net.ip(net.node, "link", "set", "eth0", "address", MAC)
    with net.datagrams(net.node, NODE) as speaking:
        speaking.sendto(b"hello", (PRIVATE, 9))
    eventually(lambda: node.way.mac == bytes.fromhex(MAC.replace(":", "")), WITHIN_S)


def test_its_other_address_is_looked_for_again_then(net: Network, node: Node) -> None:
    """The kernel believes for most of a minute that it knows it."""
    net.ip(net.node, "link", "set", "eth0", "address", MAC)
    with net.datagrams(net.node, NODE) as speaking:
        speaking.sendto(b"hello", (PRIVATE, 9))
    eventually(lambda: node.way6.mac == bytes.fromhex(MAC.replace(":", "")), WITHIN_S)


def test_what_an_operator_has_set_stays(net: Network, node: Node) -> None:
    permanent = ("lladdr", node.way6.mac.hex(":") if node.way6.mac else "", "dev", "private", "nud", "permanent")
    net.ip(net.balancer, "neigh", "replace", NODE6, *permanent)
    net.ip(net.balancer, "neigh", "replace", NODE, "lladdr", MAC, "dev", "private", "nud", "reachable")
    eventually(lambda: node.way.mac == bytes.fromhex(MAC.replace(":", "")), WITHIN_S)
    assert "PERMANENT" in net.ip(net.balancer, "neigh", "show", NODE6)


def test_what_the_kernel_forgets_stays_good_and_is_asked_for_again(net: Network, node: Node) -> None:
    before = node.way, node.way6
    for version in ("-4", "-6"):
        net.ip(net.balancer, version, "neigh", "flush", "dev", "private")
    assert (node.way, node.way6) == before
    node.reach.sweep()
    assert (node.way, node.way6) == before
    eventually(lambda: "lladdr" in net.ip(net.balancer, "neigh", "show", NODE), WITHIN_S)
    eventually(lambda: "lladdr" in net.ip(net.balancer, "neigh", "show", NODE6), WITHIN_S)


@pytest.mark.parametrize(("version", "address", "bits"), [("-4", NODE, 32), ("-6", NODE6, 128)])
def test_a_route_that_moves_to_another_interface(
    net: Network, node: Node, version: str, address: str, bits: int
) -> None:
    net.cable("private2", ("10.0.2.1", "fd00:2::1"), net.node, "eth1", ("10.0.2.11", "fd00:2::11"))
    router = "10.0.2.11" if address == NODE else "fd00:2::11"
    net.ip(net.balancer, version, "route", "add", f"{address}/{bits}", "via", router, "dev", "private2", "mtu", "1400")
    eventually(lambda: (node.way if address == NODE else node.way6).interface == "private2", WITHIN_S)
    way = node.way if address == NODE else node.way6
    eventually(lambda: (node.way if address == NODE else node.way6).open, WITHIN_S)
    assert (way.on_link, way.mtu) == (False, 1400)
    net.ip(net.balancer, version, "route", "del", f"{address}/{bits}")
    eventually(lambda: (node.way if address == NODE else node.way6).interface == "private", WITHIN_S)


def test_a_node_of_ipv4_behind_a_router_of_ipv6(net: Network, node: Node) -> None:
    net.ip(net.balancer, "route", "add", f"{NODE}/32", "via", "inet6", NODE6, "dev", "private")
    eventually(lambda: not node.way.on_link, WITHIN_S)
    assert node.way.open
    assert len(node.way.neighbour[1]) == 16


def test_an_interface_that_goes_down_and_comes_back(net: Network, node: Node) -> None:
    net.ip(net.node, "link", "set", "eth0", "down")
    eventually(lambda: node.way.trouble == node.way6.trouble == "private is down", WITHIN_S)
    assert list(node.reach.closed) == [1]
    net.ip(net.node, "link", "set", "eth0", "up")
    eventually(lambda: node.way.open, WITHIN_S)


def test_an_interface_that_changes_mac_and_mtu(net: Network, node: Node) -> None:
    net.ip(net.balancer, "link", "set", "private", "mtu", "1300")
    eventually(lambda: node.way.mtu == node.way6.mtu == 1300, WITHIN_S)
    net.ip(net.balancer, "link", "set", "private", "address", MAC)
    eventually(lambda: node.way.interface_mac == bytes.fromhex(MAC.replace(":", "")), WITHIN_S)


def test_no_way_and_why(net: Network, node: Node) -> None:
    net.ip(net.balancer, "route", "add", "blackhole", f"{NODE}/32")
    eventually(lambda: node.way.trouble == "there is no route", WITHIN_S)
    net.ip(net.balancer, "address", "add", f"{NODE6}/128", "dev", "lo", "nodad")
    eventually(lambda: node.way6.trouble == "the route does not lead to another machine", WITHIN_S)


def test_an_interface_that_takes_no_frames_from_xdp(net: Network, node: Node) -> None:
    """It would lose them without a word. The kernel does not say when that changes: the sweep finds out."""
    net.offload(net.node, "gro", "off")
    node.reach.set_native(True)
    eventually(lambda: node.way.trouble.startswith("private takes no frames from XDP"), WITHIN_S)
    net.offload(net.node, "gro", "on")
    node.reach.sweep()
    eventually(lambda: node.way.open, WITHIN_S)
    net.offload(net.node, "gro", "off")
    node.reach.set_native(False)
    eventually(lambda: node.way.open, WITHIN_S)


def test_changes_are_told_once(net: Network, node: Node) -> None:
    node.reach.changes()
    net.ip(net.balancer, "link", "set", "private", "mtu", "1300")
    eventually(lambda: node.way.mtu == 1300, WITHIN_S)
    changes = node.reach.changes()
    assert {change.address for change in changes} == {NODE, NODE6}
    assert "MTU 1300 (before: directly at " in str(changes[0])
    assert node.reach.changes() == ()


def test_a_burst_that_the_socket_cannot_hold(net: Network, node: Node) -> None:
    """What was lost is found out by asking for everything."""
    node.reach.close()
    node = Node(net, buffer=4096)
    routes = "".join(f"route add 10.{n >> 8}.{n & 255}.0/24 dev lo\n" for n in range(256, 1024))
    with namespace(net.balancer):
        run("ip", "-batch", "-", text=routes + f"route add blackhole {NODE}/32\n")
    eventually(lambda: node.way.trouble == "there is no route", WITHIN_S)


def test_thousands_of_nodes_behind_one_neighbour(net: Network) -> None:
    """A change of all of them takes many slices, between which others have their turn."""
    macs = dict[int, bytes | None]()
    with namespace(net.balancer):
        reach = Reach(lambda number, _, __, way, ___: macs.update({number: way.mac}))
    net.ip(net.balancer, "route", "add", "10.1.0.0/16", "via", NODE)
    for number in range(1, MANY + 1):
        reach.put(number, f"10.1.{number >> 8}.{number & 255}", "")
    net.ip(net.balancer, "neigh", "replace", NODE, "lladdr", MAC, "dev", "private", "nud", "reachable")
    reach.listen()
    slices = 1
    while reach.work():
        slices += 1
    assert slices > 1
    assert set(macs.values()) == {bytes.fromhex(MAC.replace(":", ""))}
    assert len(macs) == len(reach.changes()) == MANY
    reach.close()
