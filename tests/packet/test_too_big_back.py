"""What a node sends and the public interface cannot carry is answered, so that the node sends less."""

import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from gale.dataplane.adapter import BpfDataplane
from tests.packet import needs
from tests.packet.live import DNS, DNS_ON_NODES, SIDES, WEB, WEB_ON_NODES, moved, receive
from tests.packet.network import PUBLIC, PUBLIC6, Network, eventually, namespace

CARRIED = 1400
"""Bytes, on the public side; the client thinks 1500."""
HEADERS = {PUBLIC: 20 + 8, PUBLIC6: 40 + 8}
BYTES = 1 << 20

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, ALWAYS = 10, 23, 2

pytestmark = [needs.NAMESPACES, needs.ETHTOOL]


@pytest.fixture(scope="module")
def narrow(shared_net: Network, shared: BpfDataplane) -> BpfDataplane:
    net = shared_net
    net.ip(net.balancer, "link", "set", "public", "mtu", str(CARRIED))
    return shared


def narrowed(net: Network) -> None:
    """Nobody knows of the narrow way yet."""
    for version in ("-4", "-6"):
        net.ip(net.node, version, "route", "flush", "cache")


@pytest.mark.parametrize("service", [PUBLIC, PUBLIC6])
def test_datagrams(shared_net: Network, narrow: BpfDataplane, service: str) -> None:
    net, before, size = shared_net, narrow.verdicts(), CARRIED - HEADERS[service]
    narrowed(net)
    with (
        net.datagrams(net.node, SIDES[service][0], DNS_ON_NODES) as node,
        net.datagrams(net.client, "::" if ":" in service else "0.0.0.0") as client,
    ):
        if ":" in service:
            node.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, ALWAYS)
        else:
            node.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, ALWAYS)
        client.connect((service, DNS))
        client.send(b"question")
        _, peer = node.recvfrom(100)
        node.sendto(bytes(size + 1), peer)
        eventually(lambda: moved(narrow, before).get("too_big") == 1)

        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            eventually(lambda: not node.sendto(bytes(size + 1), peer))
        node.sendto(bytes(size), peer)
        assert client.recv(1 << 16) == bytes(size)


@pytest.mark.parametrize("tx", ["on", "off"])
@pytest.mark.parametrize("merged", ["on", "off"])
@pytest.mark.parametrize("service", [PUBLIC, PUBLIC6])
def test_a_connection(shared_net: Network, narrow: BpfDataplane, service: str, merged: str, tx: str) -> None:
    """Also where the private side merges segments: they would leave as they came."""
    net, before = shared_net, narrow.verdicts()
    narrowed(net)
    net.offload(net.node, "tx", tx)
    with namespace(net.balancer):
        net.offload(net.balancer, "gro", merged, interface="private")
    data = os.urandom(BYTES)
    with net.listen(WEB_ON_NODES, address=SIDES[service][0]) as listening, net.connect(WEB, address=service) as client:
        node, _ = listening.accept()
        node.settimeout(10)
        with node, ThreadPoolExecutor() as threads:
            threads.submit(node.sendall, data)
            assert receive(client, BYTES) == data
    assert 0 < moved(narrow, before)["too_big"] < 50
