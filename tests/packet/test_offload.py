"""Checksums that senders leave to their network card, and receivers to theirs, and segments put together or not: in
every combination a hundred thousand packets arrive without one wrong checksum.

    node tx on       what reaches the private side has its checksum unfinished (CHECKSUM_PARTIAL), in large segments
    node tx off      finished, in segments of the MTU
    public tx off    what leaves to the client is finished in software, and the client's kernel looks at it
    gro              segments are put together before the programs see them, or not

The client's tx stays off: XDP sees finished checksums, as every network card delivers them (docs/TESTING.md).
"""

import itertools
import os

import pytest

from tests.packet import needs
from tests.packet.live import datagrams, exchange, started
from tests.packet.network import PUBLIC, PUBLIC6, Network, namespace

PACKETS = 100_000
TCP_BYTES = 6 << 20
DATAGRAMS = 1_000

pytestmark = [needs.NAMESPACES, needs.ETHTOOL]


def wrong_checksums(net: Network) -> int:
    """That either end has counted, of both IP versions."""
    return sum(_wrong(where) for where in (net.client, net.node))


def _wrong(where: str) -> int:
    with namespace(where), open("/proc/thread-self/net/snmp") as four, open("/proc/thread-self/net/snmp6") as six:
        lines, pairs = four.read().splitlines(), dict(line.split() for line in six.read().splitlines())
    found = int(pairs["Udp6InCsumErrors"])
    for names, values in itertools.pairwise(lines):
        if names.split(":")[0] == values.split(":")[0] and "InCsumErrors" in names:
            found += int(values.split()[names.split().index("InCsumErrors")])
    return found


def segments(net: Network) -> int:
    """That have arrived at either end, in the sizes they had on the way."""
    found = 0
    for where in (net.client, net.node):
        with namespace(where), open("/proc/thread-self/net/dev") as devices:
            found += next(int(line.split()[2]) for line in devices if line.strip().startswith("eth0:"))
    return found


@pytest.mark.timeout(120)
def test_no_wrong_checksum_in_any_combination(net: Network) -> None:
    dataplane = started(net)
    data, before = os.urandom(TCP_BYTES), segments(net)
    for node, public, gro in itertools.product(("on", "off"), repeat=3):
        net.offload(net.node, "tx", node)
        net.offload(net.balancer, "tx", public, interface="public")
        for interface in ("public", "private"):
            net.offload(net.balancer, "gro", gro, interface=interface)
        for service in (PUBLIC, PUBLIC6):
            assert exchange(net, data, service)[:2] == (data, data)
            assert datagrams(net, service, DATAGRAMS, size=1200) == DATAGRAMS
        assert wrong_checksums(net) == 0, f"node tx {node}, public tx {public}, gro {gro}"
    assert segments(net) - before >= PACKETS
    dataplane.close()
