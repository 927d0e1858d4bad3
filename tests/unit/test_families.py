"""The metrics of a load balancer: what they say, how they are written, and what ten thousand nodes cost."""

import asyncio
import re
import shutil
import subprocess
import time
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.slots import SlotTable
from gale.core.state import ClusterState, LoadBalancer, Node, NodeInfo, Phase, Reference
from gale.ports import ConsensusStatus, Counters, LocalStatus, Traffic
from gale.web import families, node_families
from gale.web.exposition import Family, exposition
from gale.web.families import Seen, measured

ROOT = Path(__file__).parents[2]
A, B, C = (f"192.168.1.{last}:9090" for last in (2, 3, 4))
SHARED = SharedConfig(HealthPolicy(), (Service("default", 8080, 80), Service("dns", 53, 53)))
TRAFFIC = Traffic(10, 1_000, 9, 900, 2)
HELD_MS_MAX = 50


def node(number: int, phase: Phase = Phase.ROUTING, fails: int = 0, drained: bool = False) -> Node:
    return Node(NodeInfo(f"web-{number}", f"10.0.0.{number}"), number, phase, fails=fails, drained=drained)


def seen() -> Seen:
    """A leads three load balancers, of which C is not heard and is configured otherwise."""
    known = {lb: LoadBalancer(lb, "", "0.1.0", SHARED) for lb in (A, B)}
    known[C] = LoadBalancer(C, "", "0.1.0", replace(SHARED, services=()))
    nodes = [node(1), node(2, Phase.DRAINING, drained=True), node(3, Phase.FAILED, fails=4)]
    state = ClusterState(
        generation=7,
        reference=Reference(SHARED, enforced=True),
        members=(A, B, C),
        load_balancers=known,
        nodes={each.info.id: each for each in nodes},
        tables={"default": SlotTable(array("H", [1, 1, 0, 1]).tobytes(), bytes(8)), "dns": SlotTable.empty(4)},
    )
    status = ConsensusStatus(A, 3, True, 41, frozenset({A, B}))
    local = LocalStatus(
        A, "0.1.0", SHARED.hash, 6, status, {}, {"eth1": "native"}, troubles={"dataplane": "no room"}, mended=2
    )
    counters = Counters({"forwarded": 10}, {"default": TRAFFIC}, {1: TRAFFIC, 99: TRAFFIC}, {"dns": 5})
    actions = {"forwarded": "redirect", "no_node": "drop"}
    return Seen(
        state, local, counters, actions, {"raft": 5, "web": 0}, ready=False, killed=12, certificate_ends_s=1.8e9
    )


async def lines(what: Seen, nodes: bool = True) -> list[str]:
    return b"".join(await exposition(measured(what, nodes))).decode().splitlines()


@pytest.mark.parametrize(
    "line",
    [
        'gale_build_info{version="0.1.0"} 1.0',
        "gale_ready 0.0",
        'gale_trouble{part="dataplane"} 1.0',
        'gale_trouble{part="consensus"} 0.0',
        "gale_raft_leader 1.0",
        "gale_raft_quorum 1.0",
        "gale_raft_term 3.0",
        "gale_raft_applied_index 41.0",
        f'gale_raft_peer_connected{{load_balancer="{B}"}} 1.0',
        f'gale_raft_peer_connected{{load_balancer="{C}"}} 0.0',
        f'gale_configuration_differs{{load_balancer="{A}"}} 0.0',
        f'gale_configuration_differs{{load_balancer="{C}"}} 1.0',
        f'gale_load_balancer_ignored{{load_balancer="{C}"}} 1.0',
        "gale_generation 6.0",
        "gale_committed_generation 7.0",
        'gale_interface_attached{how="native",interface="eth1"} 1.0',
        "gale_dataplane_mended_total 2.0",
        'gale_refused_total{port="raft"} 5.0',
        "gale_flows_killed_total 12.0",
        "gale_certificate_expiry_timestamp_seconds 1.8e+09",
        'gale_nodes{phase="routing"} 1.0',
        'gale_nodes{phase="banned"} 0.0',
        "gale_nodes_drained 1.0",
        'gale_service_nodes{service="default"} 1.0',
        'gale_service_nodes{service="dns"} 0.0',
        'gale_service_moved_slots{service="dns"} 5.0',
        'gale_packets_total{action="redirect",verdict="forwarded"} 10.0',
        'gale_packets_total{action="drop",verdict="no_node"} 0.0',
        'gale_service_packets_total{direction="in",service="default"} 10.0',
        'gale_service_bytes_total{direction="out",service="default"} 900.0',
        'gale_service_flows_total{service="dns"} 0.0',
        'gale_node_phase{node="web-2",phase="draining"} 1.0',
        'gale_node_fails{node="web-3"} 4.0',
        'gale_node_bytes_total{direction="in",node="web-1"} 1000.0',
        'gale_node_flows_total{node="web-1"} 2.0',
    ],
)
async def test_what_is_known_is_told(line: str) -> None:
    assert line in await lines(seen())


async def test_nodes_can_be_left_out_and_those_that_are_forgotten_are() -> None:
    assert not [line for line in await lines(seen(), nodes=False) if "gale_node_" in line]
    assert not [line for line in await lines(seen()) if "99" in line and "gale_node_" in line]


async def test_without_a_certificate_none_ends() -> None:
    told = await lines(replace(seen(), certificate_ends_s=None))
    assert not [line for line in told if "certificate" in line]


async def test_a_long_family_has_one_head() -> None:
    many = many_nodes(1_000)
    told = await lines(many)
    assert len([line for line in told if line.startswith("gale_node_phase{")]) == 1_000
    assert len([line for line in told if line.startswith("# TYPE gale_node_phase ")]) == 1
    heads = [line for line in told if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_to_say() -> None:
    text = "\n".join([*asyncio.run(lines(seen())), ""])
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr, checked.stdout) == (0, "", "")


def many_nodes(count: int) -> Seen:
    few = seen()
    nodes = {f"web-{number}": node(number) for number in range(1, count + 1)}
    counted = replace(few.counters, nodes=dict.fromkeys(range(1, count + 1), TRAFFIC))
    return replace(few, state=replace(few.state, nodes=nodes), counters=counted)


async def test_ten_thousand_nodes_do_not_hold_the_loop() -> None:
    """In time of this thread, which other programs do not lengthen."""
    many = many_nodes(10_000)
    writing = asyncio.create_task(lines(many))
    held_s, before_s = 0.0, time.thread_time()
    await asyncio.sleep(0)
    while not writing.done():
        now_s = time.thread_time()
        held_s, before_s = max(held_s, now_s - before_s), now_s
        await asyncio.sleep(0)
    assert held_s < HELD_MS_MAX / 1_000
    assert len([line for line in await writing if line.startswith("gale_node_")]) == 70_000


async def test_every_metric_is_in_the_documents_and_none_else() -> None:
    told = (vars(families).values(), vars(node_families).values())
    names = {family.name for each in told for family in each if isinstance(family, Family)}
    documented = re.findall(r"^\| `(gale_\w+)`", (ROOT / "docs" / "METRICS.md").read_text(), re.MULTILINE)
    assert sorted(set(documented)) == sorted(names)
    assert {family.name for family, _ in measured(seen(), nodes=True)} <= names
