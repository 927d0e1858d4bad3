"""A network that loses packets: leaders stay, and decisions go on."""

import itertools
from contextlib import ExitStack
from unittest import mock

import pytest

from tests.sim.cluster import Cluster, Setting
from tests.sim.network import Host

SHARE, FOR_S = 0.3, 30.0
SEEDS = (1, 2, 3)
NO_FAULTS = Setting(weights={"flap": 1}, faults_a_second=1e-9, seconds=FOR_S)


def changes(seed: int, *, datagrams: bool = True) -> tuple[int, int]:
    """Leader changes while three of ten packets are lost on every link, and what was committed meanwhile."""
    cluster = Cluster(seed, NO_FAULTS)
    before: list[int] = []

    def lose() -> None:
        before.extend((len(cluster.witness.leaders), cluster.witness.acked))
        for one, other in itertools.permutations(cluster.machines.values(), 2):
            cluster.network.lose((one.ip, other.ip), SHARE)

    cluster.outside.call_at(3.0, lose)
    with ExitStack() as stack:
        if not datagrams:
            stack.enter_context(mock.patch.object(Host, "send"))
        cluster.run()
    return len(cluster.witness.leaders) - before[0], cluster.witness.acked - before[1]


@pytest.mark.timeout(600)
def test_a_leader_is_not_deposed_because_packets_are_lost() -> None:
    found = [changes(seed) for seed in SEEDS]
    assert sum(changed for changed, _ in found) <= 1, found
    assert all(commits > FOR_S for _, commits in found), found


@pytest.mark.timeout(600)
def test_by_the_streams_alone_it_would_be() -> None:
    """The network of the simulation is as bad as it must be for the test above to say something."""
    assert sum(changes(seed, datagrams=False)[0] for seed in SEEDS) > 3 * len(SEEDS)
