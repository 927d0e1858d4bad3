"""Every mode with both IP versions, all in one lab: real clients in real transfers.

The services' addresses are the load balancers' own, on the wire that nodes are on as well: a node that answered for
them, in ARP or in neighbour discovery, would take them away. The far client stands behind a link of 1300 bytes, and
only ICMP that finds its way to the node tells it so.
"""

import pytest

from e2e.faults.results import Results
from e2e.plane import clients
from e2e.plane.clients import CELL_NAMES, CELLS, at
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions

FAR_MTU = 1300
TRANSFER = 100_000
LEAST = 20e6  # bits per second
OPTIONS = LabOptions(1, modes=("l4", "l2", "l3"), ipv6=True, udp=True, iperf=True, far_mtu=FAR_MTU)

pytestmark = pytest.mark.leaves_whole

cells = pytest.mark.parametrize(("mode", "version"), CELLS, ids=CELL_NAMES)


@cells
def test_a_hundred_requests_are_answered_by_all_nodes(lab: Lab, mode: str, version: int) -> None:
    assert set(clients.curl(lab, at(lab, mode, version), 100)) == clients.nodes(lab)


@cells
def test_ten_streams_in_both_directions(lab: Lab, results: Results, long: bool, mode: str, version: int) -> None:
    """In the short form a machine that did something else meanwhile gets another chance."""
    for _ in range(1 if long else 3):
        speed = clients.iperf(lab, mode, version, seconds=10 if long else 1)
        if min(speed.there, speed.back) >= LEAST:
            break
    results.judge(
        "modes",
        f"{mode} IPv{version}: iperf3, {clients.STREAMS} streams, both directions at once",
        "each stream carries, ≥ 20 Mbit/s each way",
        f"{speed.there / 1e6:.0f} Mbit/s there, {speed.back / 1e6:.0f} Mbit/s back",
        min(speed.there, speed.back) >= LEAST,
    )


@cells
def test_datagrams_come_back(lab: Lab, mode: str, version: int) -> None:
    with clients.flows(lab, at(lab, mode, version), 50, "udp") as kept:
        began_s = kept.rounds[-1].ended_s
        clients.asked(kept, began_s)
    assert kept.last is not None
    assert (kept.last.alive, kept.last.crossed, kept.last.moved) == (50, 0, 0), kept.broken
    assert set(kept.last.nodes) == clients.nodes(lab)


@cells
def test_a_transfer_through_a_narrow_link_completes(
    lab: Lab, results: Results, long: bool, mode: str, version: int
) -> None:
    size = 100 * TRANSFER if long else TRANSFER
    where, told = at(lab, mode, version), {}
    for way, transfer in (("down", clients.download), ("up", clients.upload)):
        clients.forget_paths(lab)  # else a node that was told announces segments that fit
        done = transfer(lab, where, size, "far")
        told[way] = (done, clients.learned(lab, FAR_MTU, version))
    (came, to_send), (went, to_receive) = told["down"], told["up"]
    results.judge(
        "24 ICMP fragmentation needed, packet too big",
        f"{mode} IPv{version}: {size // 1000} KB each way through a link of {FAR_MTU} bytes",
        "both complete, since the node, then the client were told",
        f"{came // 1000} KB came, told: {', '.join(sorted(to_send)) or 'nobody'};"
        f" {went // 1000} KB went, told: {', '.join(sorted(to_receive)) or 'nobody'}",
        came == went == size and bool(to_send & clients.nodes(lab)) and "far" in to_receive,
    )
