"""The node's program on a real interface, with real sockets and with what offloading does to checksums."""

import socket
import struct
from collections.abc import Iterator
from time import monotonic

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from gale.dataplane.address import packed
from gale.dataplane.attach import attach_filter, attach_xdp
from gale.dataplane.compiler import source
from gale.dataplane.program import Program, load_source
from tests.packet.network import NODE, NODE6, PRIVATE, PRIVATE6, Network, namespace, network
from tests.packet.oracle import ones_complement_sum

VIP, VIP6 = "192.0.2.80", "2001:db8:5::80"
PORT, SEGMENT = 80, 1300
SOL_PACKET, PACKET_VNET_HEADER = 263, 15
VNET_HEADER, NEEDS_CHECKSUM = 10, 1
ETH_P_ALL = 3
SYN_ACK = 0x12


@pytest.fixture(scope="module")
def net(bpf: None) -> Iterator[Network]:
    """The load balancer's namespace is the client of the node, which serves VIP, and has its programs."""
    program = load_source(source("decap.c"), [], {"gale_decap": "xdp", "gale_clamp": "tc"})
    fill(program)
    with network() as net:
        for address, through in ((VIP, NODE), (VIP6, NODE6)):
            net.ip(net.node, "address", "add", address, "dev", "lo")
            net.ip(net.balancer, "route", "add", address, "via", through)
        with namespace(net.node):
            attach_xdp("eth0", program.fds["gale_decap"], "gale_decap")
            attach_filter("eth0", program.fds["gale_clamp"], "gale_clamp", "egress")
        yield net


def fill(program: Program) -> None:
    for name, addresses, value in (
        ("load_balancers", (PRIVATE, PRIVATE6), 1),
        ("own_addresses", (NODE, NODE6), 1),
        ("segments", (VIP, VIP6), SEGMENT),
    ):
        program.maps[name].update_many({packed(address): struct.pack("=I", value) for address in addresses})


@pytest.mark.parametrize("offload", ["on", "off"])
@pytest.mark.parametrize("address", [VIP, VIP6], ids=["IPv4", "IPv6"])
def test_the_checksum_of_a_clamped_answer(net: Network, address: str, offload: str) -> None:
    """Whole, or the pseudo header's sum where the network card has to complete it; and the connection opens."""
    net.offload(net.node, "tx", offload)
    with namespace(net.balancer):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with wire, net.listen(PORT, address=address):
        wire.setsockopt(SOL_PACKET, PACKET_VNET_HEADER, 1)
        wire.bind(("private", 0))
        wire.settimeout(5)
        with namespace(net.balancer), socket.create_connection((address, PORT), 5) as client:
            client.sendall(b"x")
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SEGMENT
        flags, packet = syn_ack(wire, address)
    assert dict(packet[TCP].options)["MSS"] == SEGMENT
    assert bool(flags & NEEDS_CHECKSUM) == (offload == "on")
    segment = bytes(packet[TCP])
    pseudo = packed(packet.src) + packed(packet.dst) if address == VIP6 else address_bytes(packet)
    pseudo += struct.pack("!HH", socket.IPPROTO_TCP, len(segment))
    if offload == "on":
        assert packet[TCP].chksum == ones_complement_sum(pseudo)
    else:
        assert ones_complement_sum(pseudo + segment) == 0xFFFF


def address_bytes(packet: Packet) -> bytes:
    return socket.inet_aton(packet.src) + socket.inet_aton(packet.dst)


def syn_ack(wire: socket.socket, address: str) -> tuple[int, Packet]:
    """The flags of its VNET header, and the packet."""
    end = monotonic() + 5
    while monotonic() < end:
        frame = wire.recv(65536)
        packet = (IP if address == VIP else IPv6)(frame[VNET_HEADER + 14 :])
        if TCP in packet and packet.src == address and packet[TCP].flags == SYN_ACK:
            return frame[0], packet
    raise TimeoutError(f"no SYN/ACK from {address} within 5 s")


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("address", [VIP, VIP6], ids=["IPv4", "IPv6"])
def test_what_comes_by_a_tunnel_is_served(net: Network, address: str, outer: int) -> None:
    """A datagram of this client in a tunnel; the node answers it directly, from the service's address."""
    own = PRIVATE if address == VIP else PRIVATE6
    tunnel = IP(src=PRIVATE, dst=NODE) if outer == 4 else IPv6(src=PRIVATE6, dst=NODE6)
    with (
        net.datagrams(net.node, address, PORT) as node,
        net.datagrams(net.balancer, own) as client,
        namespace(net.balancer),
    ):
        port = client.getsockname()[1]
        inside = (IP if address == VIP else IPv6)(src=own, dst=address) / UDP(sport=port, dport=PORT) / b"question"
        send(net, bytes(tunnel / inside), outer)
        question, asked_by = node.recvfrom(100)
        node.sendto(b"answer", asked_by)
        answer, answered_by = client.recvfrom(100)
    assert (question, answer) == (b"question", b"answer")
    assert asked_by[:2] == (own, port)
    assert answered_by[:2] == (address, PORT)


def send(net: Network, packet: bytes, version: int) -> None:
    """An IP packet, header and all, to the node."""
    mac = bytes.fromhex(neighbour(net).replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("private", 0))
        own = wire.getsockname()[4]
        wire.send(mac + own + (b"\x08\x00" if version == 4 else b"\x86\xdd") + packet)


def neighbour(net: Network) -> str:
    (line,) = [line for line in net.ip(net.node, "-o", "link", "show", "eth0").splitlines() if line]
    return line.split("link/ether ")[1].split()[0]
