"""The load balancer of a network of namespaces, and real sockets through its programs."""

import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from gale.core.plan import ClearNode, SetNode, SetSlots
from gale.dataplane.adapter import BpfDataplane
from gale.dataplane.settings import DataplaneSettings, Listener
from tests.packet.network import NODE, NODE6, PRIVATE, PRIVATE6, PUBLIC, PUBLIC6, Network, eventually, namespace

WEB, WEB_ON_NODES, DNS, DNS_ON_NODES, SLOTS = 80, 8080, 53, 5353, 64
SERVICES = ("web", "dns")
SETTINGS = DataplaneSettings(
    public_interface="public",
    private_interface="private",
    source_address=PRIVATE,
    source_address6=PRIVATE6,
    listeners=(
        *(Listener("web", address, WEB, "tcp", WEB_ON_NODES) for address in (PUBLIC, PUBLIC6)),
        *(Listener("dns", address, DNS, "udp", DNS_ON_NODES) for address in (PUBLIC, PUBLIC6)),
    ),
    slots=SLOTS,
    flows=1 << 12,
)
SETTINGS4 = replace(SETTINGS, listeners=tuple(each for each in SETTINGS.listeners if ":" not in each.address))
"""Half as long to compile."""

SIDES = {PUBLIC: (NODE, PRIVATE), PUBLIC6: (NODE6, PRIVATE6)}
"""The address of a service -> the node's, and whom the node sees."""


def loaded(net: Network, settings: DataplaneSettings = SETTINGS) -> BpfDataplane:
    """With one node that owns every slot, and can be reached; not attached yet."""
    with namespace(net.balancer):
        dataplane = BpfDataplane(settings)
        give_node(dataplane)
        eventually(lambda: reachable(dataplane))
    return dataplane


def started(net: Network, settings: DataplaneSettings = SETTINGS) -> BpfDataplane:
    """Likewise, and attached."""
    dataplane = loaded(net, settings)
    with namespace(net.balancer):
        dataplane.attach()
        assert reachable(dataplane)
    return dataplane


def give_node(dataplane: BpfDataplane) -> None:
    dataplane.perform(SetNode(1, NODE, NODE6))
    for service in SERVICES:
        dataplane.perform(SetSlots(service, b"\1\0" * SLOTS))


def take_node(dataplane: BpfDataplane) -> None:
    for service in SERVICES:
        dataplane.perform(SetSlots(service, bytes(2 * SLOTS)))
    dataplane.perform(ClearNode(1))


def moved(dataplane: BpfDataplane, before: Mapping[str, int]) -> dict[str, int]:
    """The verdicts of packets since then."""
    now = dataplane.verdicts()
    return {name: count - before[name] for name, count in now.items() if count > before[name]}


def reachable(dataplane: BpfDataplane) -> bool:
    dataplane.refresh_neighbours()
    return not dataplane.unreachable


def exchange(net: Network, data: bytes, service: str = PUBLIC) -> tuple[bytes, bytes, str]:
    """Sends the data there and back at once: what the node got, what the client got, and whom the node saw."""
    node_address, _ = SIDES[service]
    with (
        net.listen(WEB_ON_NODES, address=node_address) as listening,
        net.connect(WEB, address=service) as client,
    ):
        node, (peer, *_) = listening.accept()
        with node:
            return (*both_ways(client, node, data), peer)


def both_ways(client: socket.socket, node: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """What the node got and what the client got."""
    with ThreadPoolExecutor() as threads:
        node.settimeout(10)
        client.settimeout(10)
        sending = [threads.submit(end.sendall, data) for end in (client, node)]
        got = [threads.submit(receive, end, len(data)) for end in (node, client)]
        for each in sending:
            each.result()
        return got[0].result(), got[1].result()


def receive(end: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (chunk := end.recv(1 << 16)):
        received += chunk
    return bytes(received)


def datagrams(net: Network, service: str, count: int, size: int, at_once: int = 16) -> int:
    """Each is sent, and answered with itself. How many came back, in the order they were sent."""
    node_address, seen = SIDES[service]
    back = 0
    with (
        net.datagrams(net.node, node_address, DNS_ON_NODES) as node,
        net.datagrams(net.client, "::" if ":" in service else "0.0.0.0") as client,
    ):
        client.connect((service, DNS))
        for begin in range(0, count, at_once):
            sent = [number.to_bytes(4) * (size // 4) for number in range(begin, min(begin + at_once, count))]
            for data in sent:
                client.send(data)
            for data in sent:
                got, peer = node.recvfrom(1 << 16)
                assert (got, peer[0]) == (data, seen)
                node.sendto(got, peer)
            back += sum(client.recv(1 << 16) == data for data in sent)
    return back
