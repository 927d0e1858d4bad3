"""Real sockets through the attached programs."""

import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from gale.core.plan import ClearNode, SetNode, SetSlots
from gale.dataplane import attach
from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.adapter import BpfDataplane
from gale.dataplane.program import Program, load
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.errors import DataplaneError
from tests.packet.balancer import SETTINGS as BALANCER_SETTINGS
from tests.packet.balancer import Balancer
from tests.packet.network import NODE, PRIVATE, PUBLIC, Network, eventually, namespace, network, run

WEB, WEB_ON_NODES, SLOTS = 80, 8080, 64
SETTINGS = DataplaneSettings(
    "public", "private", PRIVATE, None, (Listener("web", PUBLIC, WEB, "tcp", WEB_ON_NODES),), SLOTS
)
MEGABYTES = 4
MTU = 1500

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces"),
    pytest.mark.skipif(not shutil.which("ethtool"), reason="needs ethtool"),
]


@pytest.fixture
def net(loaded: Balancer) -> Iterator[Network]:
    with network() as net:
        yield net


@pytest.fixture
def dataplane(net: Network) -> BpfDataplane:
    """Attached, with one node that owns every slot."""
    return started(net)


def started(net: Network) -> BpfDataplane:
    with namespace(net.balancer):
        dataplane = BpfDataplane(SETTINGS)
        dataplane.perform(SetNode(1, NODE))
        dataplane.perform(SetSlots("web", b"\1\0" * SLOTS))
        eventually(lambda: reachable(dataplane))
        dataplane.attach()
    return dataplane


def reachable(dataplane: BpfDataplane) -> bool:
    dataplane.refresh_neighbours()
    return not dataplane.unreachable


def exchange(net: Network, data: bytes) -> tuple[bytes, bytes, str]:
    """Sends the data there and back at once: what the node got, what the client got, and whom the node saw."""
    with net.listen(WEB_ON_NODES) as listening, net.connect(WEB) as client:
        node, (peer, _) = listening.accept()
        with node, ThreadPoolExecutor() as threads:
            node.settimeout(10)
            client.settimeout(10)
            sending = [threads.submit(end.sendall, data) for end in (client, node)]
            got = [threads.submit(receive, end, len(data)) for end in (node, client)]
            for each in sending:
                each.result()
            return got[0].result(), got[1].result(), peer


def receive(end: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (chunk := end.recv(1 << 16)):
        received += chunk
    return bytes(received)


@pytest.mark.parametrize("public", ["on", "off"])
@pytest.mark.parametrize("node", ["on", "off"])
def test_megabytes_both_ways(net: Network, dataplane: BpfDataplane, node: str, public: str) -> None:
    """With checksums left to network cards (CHECKSUM_PARTIAL), in large segments, and without.

    `node` "on": packets reach the private side so. `public` "off": there they are completed in software, which the
    client then checks.
    """
    net.offload(net.node, "tx", node)
    net.offload(net.balancer, "tx", public, interface="public")
    data = os.urandom(MEGABYTES << 20)
    to_node, to_client, peer = exchange(net, data)
    assert to_node == data
    assert to_client == data
    assert peer == PRIVATE
    counters = dataplane.counters()
    assert counters["opened"] == 1
    if node == "on":
        assert counters["returned"] < len(data) / MTU / 2, "large segments were cut"


def test_a_port_nobody_listens_to_is_refused(net: Network, dataplane: BpfDataplane) -> None:
    """The node's reset reaches the client."""
    with pytest.raises(ConnectionRefusedError):
        net.connect(WEB)
    assert dataplane.counters()["returned"] == 1


def test_other_traffic_is_the_kernels(net: Network, dataplane: BpfDataplane) -> None:
    with namespace(net.balancer):
        listening = socket.create_server((PUBLIC, WEB + 1))
    with listening, net.connect(WEB + 1):
        listening.accept()[0].close()
    assert dataplane.counters()["no_service"] > 0


def test_a_packet_without_a_flow_is_answered_with_a_reset(net: Network, dataplane: BpfDataplane) -> None:
    """As after the loss of the flow table: the client does not hang."""
    with net.listen(WEB_ON_NODES) as listening, net.connect(WEB) as client, listening.accept()[0]:
        with namespace(net.balancer):
            dataplane.perform(SetSlots("web", bytes(2 * SLOTS)))
            dataplane.perform(ClearNode(1))
        client.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert dataplane.counters()["node_gone"] > 0


def test_a_tagged_frame_is_not_a_reply(net: Network, dataplane: BpfDataplane) -> None:
    """The kernel takes the tag off a frame before TC sees it."""
    with net.listen(WEB_ON_NODES), net.connect(WEB) as client:
        mac = run("ip", "-n", net.balancer, "-br", "link", "show", "private").split()[2]
        before = dataplane.counters()
        reply = IP(src=NODE, dst=PRIVATE) / TCP(sport=WEB_ON_NODES, dport=client.getsockname()[1], flags="A")
        with namespace(net.node), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(bytes(Ether(dst=mac) / Dot1Q(vlan=7) / reply))
            eventually(lambda: dataplane.counters()["not_a_reply"] > before["not_a_reply"])
        assert dataplane.counters()["returned"] == before["returned"]


def test_a_start_takes_the_place_of_the_programs_that_are_there(net: Network, dataplane: BpfDataplane) -> None:
    programs = attached(net)
    second = started(net)
    assert second.attachment == dataplane.attachment == attach.Attachment("public", "native", "private")
    assert attached(net) != programs
    exchange(net, b"x")
    assert second.counters()["opened"] == 1
    assert dataplane.counters()["opened"] == 0


def test_detach_takes_off_what_is_gales_and_nothing_else(net: Network, dataplane: BpfDataplane) -> None:
    foreign = ("tc", "-n", net.balancer, "filter", "add", "dev", "private", "ingress", "prio", "1")
    run(*foreign, "bpf", "bytecode", "1,6 0 0 0,")
    with namespace(net.balancer):
        for _ in range(2):
            attach.detach("public", "private")
    xdp, filters = attached(net)
    assert "xdp" not in xdp
    assert "gale" not in filters
    assert "bytecode" in filters
    run("tc", "-n", net.balancer, "filter", "del", "dev", "private", "ingress", "prio", "1")
    with namespace(net.balancer):
        attach.detach("public", "private")
    assert "clsact" not in run("tc", "-n", net.balancer, "qdisc", "show", "dev", "private")


def test_generic_where_the_driver_cannot(net: Network, loaded: Balancer) -> None:
    """A bridge has no XDP of its own."""
    run("ip", "-n", net.balancer, "link", "add", "bridge0", "type", "bridge")
    with namespace(net.balancer):
        attachment = attach.attach("bridge0", "private", loaded.program)
        assert attachment.public_mode == "generic"
        attach.detach("bridge0", "private")
    assert "xdp" not in run("ip", "-n", net.balancer, "link", "show", "bridge0")


def test_someone_elses_xdp_program_is_left_alone(net: Network, loaded: Balancer) -> None:
    stranger = b"int stranger(struct xdp_md *ctx) { return XDP_PASS; }"
    module = load(BALANCER_SETTINGS, (BPF_DIRECTORY / "gale.c").read_bytes() + stranger).module
    strangers = Program(module, module.load_func(b"stranger", module.XDP).fd, loaded.program.private_fd)
    with namespace(net.balancer):
        attach.attach("public", "private", strangers)
        with pytest.raises(DataplaneError, match="public: another XDP program is attached, 'stranger': take it off"):
            attach.attach("public", "private", loaded.program)
        attach.detach("public", "private")
    assert "stranger" in attached(net)[0]


def test_the_neighbours_mac_changes(net: Network, dataplane: BpfDataplane) -> None:
    """What the kernel learns, `refresh_neighbours` takes over and reports."""
    mac = "02:00:00:00:00:99"
    run("ip", "-n", net.balancer, "neigh", "replace", NODE, "lladdr", mac, "dev", "private", "nud", "permanent")
    with namespace(net.balancer):
        (change,) = dataplane.refresh_neighbours()
        assert (change.number, change.address) == (1, NODE)
        assert change.after is not None
        assert change.after.mac == bytes.fromhex(mac.replace(":", ""))
        assert dataplane.refresh_neighbours() == ()


def test_a_forgotten_mac_stays_good(net: Network, dataplane: BpfDataplane) -> None:
    run("ip", "-n", net.balancer, "neigh", "flush", "dev", "private")
    with namespace(net.balancer):
        assert dataplane.refresh_neighbours() == ()
    exchange(net, b"x")


def attached(net: Network) -> tuple[str, str]:
    """What ip and tc show."""
    return (
        run("ip", "-n", net.balancer, "link", "show", "public"),
        run("tc", "-n", net.balancer, "filter", "show", "dev", "private", "ingress"),
    )
