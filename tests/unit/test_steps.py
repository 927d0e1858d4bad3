"""Answers about ten thousand nodes are made in steps: nothing waits for them."""

from gale.core.shared import Service, SharedConfig
from gale.core.state import ClusterState, Node, NodeInfo, Phase, Reference
from gale.ports import ConsensusStatus, Counters, LocalStatus, Traffic
from gale.rpc.answers import counters_to
from gale.rpc.status import cluster_status, local_status
from gale.rpc.steps import STEP
from tests.turns import turns

NODES = 10_000
ME = "10.0.0.1:9090"
SHARED = SharedConfig(services=(Service("default", 8080, 80),))


def crowd() -> ClusterState:
    infos = [NodeInfo(f"node-{number}", f"10.1.{number >> 8}.{number & 255}") for number in range(1, NODES + 1)]
    nodes = {info.id: Node(info, number, Phase.ROUTING) for number, info in enumerate(infos, 1)}
    return ClusterState(reference=Reference(SHARED, enforced=False), nodes=nodes)


async def test_a_status() -> None:
    consensus = ConsensusStatus(ME, 1, True, 7, frozenset({ME}))
    own = local_status(LocalStatus(ME, "0.1.0", SHARED.hash, 7, consensus, {}, {}))
    status, taken = await turns(cluster_status(crowd(), own, {}))
    assert [node.id for node in status.nodes] == sorted(f"node-{number}" for number in range(1, NODES + 1))
    assert taken >= NODES // STEP - 1


async def test_counters() -> None:
    counted = Counters(nodes={number: Traffic(number) for number in range(1, NODES + 1)})
    message, taken = await turns(counters_to(ME, 1, counted, crowd()))
    assert {name: traffic.in_packets for name, traffic in message.nodes.items()} == {
        f"node-{number}": number for number in range(1, NODES + 1)
    }
    assert taken >= NODES // STEP - 1
