"""Real sockets through the attached programs."""

import asyncio
import os
import socket
from dataclasses import fields, replace

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from gale.dataplane.adapter import BpfDataplane
from gale.ports import Question, Traffic
from tests.packet import needs
from tests.packet.live import (
    SETTINGS,
    SETTINGS4,
    WEB,
    WEB_ON_NODES,
    datagrams,
    exchange,
    give_node,
    loaded,
    moved,
    started,
    take_node,
)
from tests.packet.network import (
    CLIENT,
    CLIENT6,
    NODE,
    PRIVATE,
    PRIVATE6,
    PUBLIC,
    PUBLIC6,
    Network,
    eventually,
    namespace,
    network,
    one_arm,
)

MEGABYTES = 4
MTU = 1500

pytestmark = [needs.NAMESPACES, needs.ETHTOOL]


@pytest.fixture
def net(shared_net: Network) -> Network:
    return shared_net


@pytest.fixture
def dataplane(net: Network, shared: BpfDataplane) -> BpfDataplane:
    """Attached, with one node that owns every slot."""
    with namespace(net.balancer):
        give_node(shared)
    return shared


@pytest.mark.parametrize(("service", "source"), [(PUBLIC, PRIVATE), (PUBLIC6, PRIVATE6)])
def test_megabytes_both_ways(net: Network, dataplane: BpfDataplane, service: str, source: str) -> None:
    data, before = os.urandom(MEGABYTES << 20), dataplane.verdicts()
    to_node, to_client, peer = exchange(net, data, service)
    assert to_node == data
    assert to_client == data
    assert peer == source
    counted = moved(dataplane, before)
    assert counted["opened"] == 1
    assert counted["returned"] < len(data) / MTU / 2, "large segments were cut"


@pytest.mark.parametrize("service", [PUBLIC, PUBLIC6])
def test_datagrams_both_ways(net: Network, dataplane: BpfDataplane, service: str) -> None:
    before = dataplane.verdicts()
    assert datagrams(net, service, count=1000, size=1024) == 1000
    assert moved(dataplane, before)["opened"] == 1


def test_traffic_is_counted_by_service_and_node(net: Network, dataplane: BpfDataplane) -> None:
    before, data = asyncio.run(dataplane.counters()), bytes(100_000)
    exchange(net, data)
    datagrams(net, PUBLIC, count=10, size=1000)
    now = asyncio.run(dataplane.counters())
    web, dns = (_difference(now.services[name], before.services.get(name)) for name in ("web", "dns"))
    assert web.flows == dns.flows == 1
    assert (dns.in_packets, dns.in_bytes, dns.out_packets, dns.out_bytes) == (10, 10_280, 10, 10_280)
    assert min(web.in_bytes, web.out_bytes) > len(data)
    node = _difference(now.nodes[1], before.nodes.get(1))
    assert node.in_bytes == web.in_bytes + dns.in_bytes
    assert node.out_packets == web.out_packets + dns.out_packets


def _difference(now: Traffic, before: Traffic | None) -> Traffic:
    names = [field.name for field in fields(Traffic)]
    return Traffic(**{name: getattr(now, name) - getattr(before or Traffic(), name) for name in names})


def test_a_port_nobody_listens_to_is_refused(net: Network, dataplane: BpfDataplane) -> None:
    """The node's reset reaches the client."""
    before = dataplane.verdicts()
    with pytest.raises(ConnectionRefusedError):
        net.connect(WEB)
    assert moved(dataplane, before)["returned"] == 1


def test_other_traffic_is_the_kernels(net: Network, dataplane: BpfDataplane) -> None:
    before = dataplane.verdicts()
    with namespace(net.balancer):
        listening = socket.create_server((PUBLIC, WEB + 1))
    with listening, net.connect(WEB + 1):
        listening.accept()[0].close()
    assert moved(dataplane, before)["no_service"] > 0


def test_a_packet_without_a_flow_is_answered_with_a_reset(net: Network, dataplane: BpfDataplane) -> None:
    """As after the loss of the flow table: the client does not hang."""
    before = dataplane.verdicts()
    with net.listen(WEB_ON_NODES) as listening, net.connect(WEB) as client, listening.accept()[0]:
        take_node(dataplane)
        client.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert moved(dataplane, before)["node_gone"] > 0


def test_a_reply_out_of_a_vlan(net: Network, dataplane: BpfDataplane) -> None:
    """The kernel takes the tag off a frame before TC sees it; the client gets it as its own frames are, without."""
    with net.listen(WEB_ON_NODES), net.connect(WEB) as client:
        mac = net.ip(net.balancer, "-br", "link", "show", "private").split()[2]
        before = dataplane.verdicts()
        reply = IP(src=NODE, dst=PRIVATE) / TCP(sport=WEB_ON_NODES, dport=client.getsockname()[1], flags="A")
        with namespace(net.client), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as seen:
            seen.bind(("eth0", 0))
            seen.settimeout(5)
            with namespace(net.node), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                raw.send(bytes(Ether(dst=mac) / Dot1Q(vlan=7) / reply))
            frame = Ether(seen.recv(2048))
        assert moved(dataplane, before)["returned"] == 1
        assert (frame.type, frame[IP].src, frame[TCP].dport) == (0x0800, PUBLIC, client.getsockname()[1])


def test_one_interface_for_both_sides(bpf: None) -> None:
    with one_arm() as net:
        dataplane = started(net, replace(SETTINGS, public_interface="arm", private_interface="arm"))
        data = os.urandom(MEGABYTES << 20)
        for service, source in ((PUBLIC, PRIVATE), (PUBLIC6, PRIVATE6)):
            assert exchange(net, data, service) == (data, data, source)
            assert datagrams(net, service, count=100, size=1024) == 100
        assert dataplane.attachments == {"arm": "native, tc"}
        dataplane.close()


def test_generic_where_the_driver_cannot(bpf: None) -> None:
    """A bridge has no XDP of its own. Checksums that are left to a network card get through, too; segments that are
    bigger than the MTU would not."""
    with network() as net:
        net.bridge("bridge0", "public", (PUBLIC, PUBLIC6))
        net.offload(net.client, "tx", "on", "tso", "off", "gso", "off")
        dataplane = started(net, replace(SETTINGS4, public_interface="bridge0"))
        assert dataplane.attachments == {"bridge0": "generic", "private": "tc"}
        data = os.urandom(MEGABYTES << 20)
        assert exchange(net, data)[:2] == (data, data)
        assert datagrams(net, PUBLIC, count=100, size=1024) == 100
        dataplane.close()


def test_nodes_behind_what_takes_no_frames(bpf: None) -> None:
    """Native XDP cannot hand a frame to a bridge: that is said, and counted, rather than lost."""
    with network() as net:
        net.bridge("bridge0", "private", (PRIVATE, PRIVATE6))
        dataplane = loaded(net, replace(SETTINGS4, private_interface="bridge0"))
        with namespace(net.balancer):
            dataplane.attach()
            changes = [str(change) for change in dataplane.refresh_neighbours()]
        assert any("bridge0 takes no frames from XDP" in change for change in changes)
        assert dataplane.unreachable == (1,)
        with pytest.raises(TimeoutError):
            net.connect(WEB, within_s=0.5)
        assert dataplane.verdicts()["no_neighbour"] > 0
        dataplane.close()


def test_explained_as_it_would_be(net: Network, dataplane: BpfDataplane) -> None:
    with net.listen(WEB_ON_NODES), net.connect(WEB) as client:
        port = client.getsockname()[1]
        asyncio.run(dataplane.explain(Question(CLIENT, port, PUBLIC, WEB)))  # compiles; then all is quiet
        before = asyncio.run(dataplane.counters())
        questions = (
            Question(CLIENT, port, PUBLIC, WEB),
            Question(CLIENT, port + 1, PUBLIC, WEB),
            Question(CLIENT, port + 1, PUBLIC, WEB, opening=True),
            Question(NODE, WEB_ON_NODES, PRIVATE, port),
            Question(CLIENT, port, PUBLIC, WEB + 1),
        )
        known, unknown, new, back, other = [asyncio.run(dataplane.explain(question)) for question in questions]
        after = asyncio.run(dataplane.counters())
        told = {answer.verdict for answer in (known, unknown, new, back, other)}
        assert not told & moved(dataplane, before.verdicts).keys(), "neighbours may talk meanwhile, and nobody else"
        assert (after.services, after.nodes) == (before.services, before.nodes)
    assert (known.verdict, known.mode, known.service, known.node) == ("forwarded", "l4", "web", 1)
    assert known.interface == "private"
    assert known.flow is not None
    assert (known.flow.source_port, known.flow.state) == (port, "established")
    assert [header.name for header in known.headers] == ["ethernet", "ipv4", "tcp"]
    assert known.headers[1].fields["destination"] == NODE
    assert (unknown.verdict, unknown.flow, unknown.headers) == ("no_flow", None, ())
    assert (new.verdict, new.node, new.flow) == ("opened", 1, None)
    assert new.slot is not None
    assert (back.verdict, back.side, back.interface) == ("returned", "private", "public")
    assert (other.verdict, other.action) == ("no_service", "pass")


def test_the_interface_that_it_leaves_by(
    net: Network, dataplane: BpfDataplane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ways to a node by its two addresses may lead out of different ones."""
    with namespace(net.balancer):
        eventually(lambda: not dataplane.unreachable)
    ways = tuple(replace(way, interface=name) for way, name in zip(dataplane.ways(1), ("four", "six"), strict=True))
    monkeypatch.setattr(dataplane._reach, "ways", lambda _: ways)
    for client, service, interface in ((CLIENT, PUBLIC, "four"), (CLIENT6, PUBLIC6, "six")):
        question = Question(client, 40_000, service, WEB, opening=True)
        assert asyncio.run(dataplane.explain(question)).interface == interface
