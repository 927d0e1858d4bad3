"""Other wirings: one interface for both sides, and nodes behind a router."""

import pytest

from e2e.faults.results import Results
from e2e.plane import clients
from e2e.plane.clients import CELL_NAMES, CELLS, at
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions

NODES_MTU = 1300
TRANSFER = 100_000
ONE_ARM = LabOptions(1, 2, modes=("l2", "l3", "l4"), ipv6=True, udp=True, one_arm=True, virtual=True)
SUBNETS = LabOptions(
    1, modes=("l3", "l4"), tunnel="ipv6", ipv6=True, udp=True, subnets=True, virtual=True, nodes_mtu=NODES_MTU
)

pytestmark = pytest.mark.leaves_whole


def check(lab: Lab, mode: str, version: int) -> None:
    """Requests, datagrams, and a transfer each way."""
    where = at(lab, mode, version)
    assert set(clients.curl(lab, where, 50)) == clients.nodes(lab)
    with clients.flows(lab, where, 20, "udp") as kept:
        clients.asked(kept, kept.rounds[-1].ended_s)
    assert kept.last is not None
    assert (kept.last.alive, kept.last.crossed, kept.last.moved) == (20, 0, 0), kept.broken
    assert clients.download(lab, where, TRANSFER, "client") == TRANSFER
    assert clients.upload(lab, where, TRANSFER, "client") == TRANSFER


@pytest.mark.lab(ONE_ARM)
@pytest.mark.parametrize(("mode", "version"), CELLS, ids=CELL_NAMES)
def test_one_arm(lab: Lab, mode: str, version: int) -> None:
    check(lab, mode, version)


@pytest.mark.lab(SUBNETS)
@pytest.mark.parametrize("version", [4, 6])
def test_l3_reaches_nodes_behind_a_router_with_either_version_inside_ipv6(lab: Lab, version: int) -> None:
    check(lab, "l3", version)


@pytest.mark.lab(SUBNETS)
@pytest.mark.parametrize("version", [4, 6])
def test_l4_tells_the_client_what_a_router_behind_it_said(lab: Lab, results: Results, version: int) -> None:
    """The nodes announce segments that do not fit through their own wire: only ICMP makes uploads smaller."""
    clients.forget_paths(lab)
    check(lab, "l4", version)
    told = clients.learned(lab, NODES_MTU, version)
    results.judge(
        "24 ICMP fragmentation needed, packet too big",
        f"l4 IPv{version}: 100 KB to nodes behind a link of {NODES_MTU} bytes",
        "completes, and the client was told",
        f"complete; told: {', '.join(sorted(told)) or 'nobody'}",
        "client" in told,
    )
