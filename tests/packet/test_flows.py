"""Flows of real sockets are listed, counted and ended; and a large table holds up nobody."""

import asyncio
import gc
import socket
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, TypeVar

import pytest

from gale.dataplane import jiffies, listeners
from gale.dataplane.adapter import BpfDataplane
from gale.dataplane.address import packed
from gale.dataplane.farewell import Farewell
from gale.dataplane.flows import Flows
from gale.dataplane.maps import Maps
from gale.dataplane.program import Program, load
from gale.dataplane.settings import PROTOCOLS, DataplaneSettings, Listener
from gale.dataplane.strays import Strays
from gale.dataplane.words import FLAGS_SHIFT, flags, quiet_s
from gale.errors import DataplaneError
from gale.ports import Flow, FlowChoice
from tests.packet import needs
from tests.packet.live import DNS, SETTINGS, SIDES, WEB, WEB_ON_NODES, datagrams, give_node, take_node
from tests.packet.network import (
    CLIENT,
    CLIENT6,
    PUBLIC,
    PUBLIC6,
    Network,
    eventually,
    namespace,
)

T = TypeVar("T")
Ends = tuple[socket.socket, socket.socket]

NOTICED_S = 3.0
TURN_S = 0.05
PLACES, EVERY_SO_MANY = 1 << 20, 16
EVERY = FlowChoice()
LARGE = DataplaneSettings("lo", "lo", "10.0.0.1", None, (Listener("web", PUBLIC, 80, "tcp", 80),), 64, PLACES // 2)

pytestmark = [needs.NAMESPACES, needs.ETHTOOL]


@pytest.fixture
def net(shared_net: Network) -> Network:
    return shared_net


@pytest.fixture
def dataplane(net: Network, shared: BpfDataplane) -> Iterator[BpfDataplane]:
    """Attached, with one node that owns every slot, and without flows."""
    with namespace(net.balancer):
        give_node(shared)
        asyncio.run(shared.flows.kill(EVERY))
        yield shared


@contextmanager
def connections(net: Network, many: int = 1, service: str = PUBLIC) -> Iterator[list[Ends]]:
    """Established, as both ends have seen: of each the client's end and the node's."""
    with ExitStack() as stack:
        listening = stack.enter_context(net.listen(WEB_ON_NODES, address=SIDES[service][0]))
        pairs = []
        for _ in range(many):
            client = stack.enter_context(net.connect(WEB, address=service))
            node = stack.enter_context(listening.accept()[0])
            node.sendall(b"x")
            assert client.recv(1) == b"x"
            client.settimeout(NOTICED_S)
            node.settimeout(NOTICED_S)
            pairs.append((client, node))
        yield pairs


def listed(dataplane: BpfDataplane, choice: FlowChoice = EVERY, most: int = 100) -> list[Flow]:
    return asyncio.run(dataplane.flows.some(choice, most))[0]


@pytest.mark.parametrize(("service", "client"), [(PUBLIC, CLIENT), (PUBLIC6, CLIENT6)])
def test_a_flow_is_listed_as_its_ends_know_it(net: Network, dataplane: BpfDataplane, service: str, client: str) -> None:
    with connections(net, service=service) as [(end, node)]:
        (flow,) = listed(dataplane)
        port = end.getsockname()[1]
        assert flow.quiet_s < 2
        assert replace(flow, quiet_s=0) == Flow(
            *(client, port, "tcp", "web", service, WEB, 1, node.getpeername()[1], "established", 0)
        )
    eventually(lambda: listed(dataplane)[0].state == "ended")


def test_flows_are_chosen_and_counted(net: Network, dataplane: BpfDataplane) -> None:
    datagrams(net, PUBLIC6, count=20, size=64)
    with connections(net) as [(client, _)]:
        port = client.getsockname()[1]
        counted = {("web", "tcp", 1, "established"): 1, ("dns", "udp", 1, "established"): 1}
        assert asyncio.run(dataplane.flows.count(EVERY)) == counted
        web = [
            FlowChoice(ip_network("198.51.100.0/24")),
            FlowChoice(ip_network(CLIENT), port),
            FlowChoice(port=port, service="web", node=1, state="established"),
        ]
        assert [[flow.service for flow in listed(dataplane, choice)] for choice in web] == [["web"]] * 3
        for clients in ("2001:db8:1::/64", "::/0"):
            assert [flow.client for flow in listed(dataplane, FlowChoice(ip_network(clients)))] == [CLIENT6]
        assert [flow.port for flow in listed(dataplane, FlowChoice(service="dns"))] == [DNS]
        none = [
            FlowChoice(ip_network("198.51.100.0/30")),
            FlowChoice(ip_network(CLIENT), port + 1),
            FlowChoice(node=2),
            FlowChoice(state="opening"),
        ]
        assert [listed(dataplane, choice) for choice in none] == [[]] * 4
        assert asyncio.run(dataplane.flows.some(EVERY, 1))[1], "there is more"
        take_node(dataplane)
        assert {flow.node for flow in listed(dataplane)} == {None}
        assert listed(dataplane, FlowChoice(node=1)) == []


@pytest.mark.parametrize("service", [PUBLIC, PUBLIC6])
def test_both_ends_of_a_flow_that_is_killed_notice_and_no_others(
    net: Network, dataplane: BpfDataplane, service: str
) -> None:
    """Also while they only wait."""
    with connections(net, 2, service) as ((client, node), (other, other_node)):
        assert asyncio.run(dataplane.flows.kill(FlowChoice(port=client.getsockname()[1]))) == 1
        for end in (client, node):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        assert [flow.client_port for flow in listed(dataplane)] == [other.getsockname()[1]]
        other.sendall(b"y")
        assert other_node.recv(1) == b"y"


def test_datagrams_of_a_flow_that_is_killed_begin_another(net: Network, dataplane: BpfDataplane) -> None:
    datagrams(net, PUBLIC, count=10, size=64)
    assert asyncio.run(dataplane.flows.kill(FlowChoice(service="dns"))) == 1
    assert listed(dataplane) == []
    assert not any(table_words(dataplane, "flows"))
    datagrams(net, PUBLIC, count=10, size=64)
    assert len(listed(dataplane)) == 1


def table_words(dataplane: BpfDataplane, name: str) -> list[bool]:
    """Which entries are in use."""
    used = flags()["used"] << FLAGS_SHIFT
    return [bool(leaf.word & used) for _, leaf in dataplane._program.maps[name].entries()]


def test_what_has_been_quiet_for_too_long_has_ended(net: Network, dataplane: BpfDataplane) -> None:
    """As bpf/lifetime.h has it, of each protocol and state."""
    assert (quiet_s()["opening"], quiet_s()["established"]) == (60, 7440)
    assert (quiet_s()["unanswered"], quiet_s()["answered"]) == (30, 180)
    table = dataplane._program.maps["returns"]
    rows = [
        ("tcp", ("established",), 7_400, "established"),
        ("tcp", ("established",), 7_500, "ended"),
        ("tcp", ("established", "ended"), 0, "ended"),
        ("tcp", ("answered",), 50, "opening"),
        ("tcp", ("answered",), 70, "ended"),
        ("udp", (), 20, "opening"),
        ("udp", (), 40, "ended"),
        ("udp", ("answered",), 170, "opening"),
        ("udp", ("answered", "established"), 190, "ended"),
    ]
    for place, (protocol, names, quiet, _) in enumerate(rows):
        word = sum(flags()[name] << FLAGS_SHIFT for name in ("used", *names))
        leaf = entry(table, 1 + place, word, quiet)
        leaf.protocol = PROTOCOLS[protocol]
        table[place] = leaf
    states = {flow.client_port - 1: flow.state for flow in listed(dataplane)}
    assert [states[place] for place in range(len(rows))] == [row[-1] for row in rows]


def test_without_l4_there_is_none(dataplane: BpfDataplane) -> None:
    direct = replace(SETTINGS, listeners=(Listener("web", PUBLIC, WEB, "tcp", WEB, "l2"),))
    program, empty = dataplane._program, listeners.Directory({})
    none = Flows(
        program, direct, lambda: empty, lambda _: 0, lambda _: ("", ""), None, strays(program, dataplane._maps)
    )
    with pytest.raises(DataplaneError, match="no service is of mode l4"):
        asyncio.run(none.some(EVERY, 1))
    assert asyncio.run(none.count(EVERY)) == {}


def strays(program: Program, maps: Maps) -> Strays:
    return Strays(program.maps["strays"], maps, ("web",), lambda _: 0)


@pytest.fixture(scope="module")
def full(bpf: None) -> Iterator[Flows]:
    """A table of a million places, each of them taken, and most by established flows."""
    program, directory = load(LARGE), listeners.number(LARGE.listeners, LARGE.services)
    table = program.maps["returns"]
    assert table.max_entries == PLACES
    memory = table.mmap()
    used, established = (flags()[name] << FLAGS_SHIFT for name in ("used", "established"))
    first, rest = entry(table, 1, used), entry(table, 2, used | established)
    memory[:] = (bytes(first) + bytes(rest) * (EVERY_SO_MANY - 1)) * (PLACES // EVERY_SO_MANY)
    farewell = Farewell(table, "lo", lambda _: 0, dict)
    gc.collect()
    gc.freeze()  # as gale-lb does: what other tests have left is not gone through
    known = strays(program, Maps(program, LARGE))
    yield Flows(program, LARGE, lambda: directory, lambda _: 0, lambda _: ("127.0.0.1", ""), farewell, known)
    gc.unfreeze()
    farewell.close()


def entry(table: Any, client_port: int, word: int, quiet_s: int = 0) -> Any:
    stamp = (jiffies.now() - quiet_s * jiffies.per_second()) & 0xFFFFFFFF
    path = table.Leaf(number=1, listener=1, protocol=socket.IPPROTO_TCP, word=word | stamp)
    path.client_port = socket.htons(client_port)
    path.client.bytes[:] = packed(CLIENT)
    return path


async def watched(work: Awaitable[T]) -> tuple[T, float]:
    """What comes of it, and how long the longest turn of the loop was busy with it, whatever else the machine does."""
    task, longest = asyncio.ensure_future(work), 0.0
    while not task.done():
        begin = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - begin)
    return task.result(), longest


def test_a_million_flows_hold_up_nobody(full: Flows) -> None:
    opening = PLACES // EVERY_SO_MANY
    counted, longest = asyncio.run(watched(full.count(EVERY)))
    states = {state: many for (*_, state), many in counted.items()}
    assert states == {"opening": opening, "established": PLACES - opening}
    assert longest < TURN_S
    (flows, more), longest = asyncio.run(watched(full.some(FlowChoice(port=2), 10_000)))
    assert (len(flows), more) == (10_000, True)
    assert longest < TURN_S
    killed, longest = asyncio.run(watched(full.kill(FlowChoice(state="opening"))))
    assert killed == opening
    assert longest < TURN_S
    assert asyncio.run(full.count(EVERY)) == {("web", "tcp", 1, "established"): PLACES - opening}
