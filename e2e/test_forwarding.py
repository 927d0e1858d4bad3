"""Traffic through every load balancer, while nodes come and go and the leader dies."""

import time

from e2e.faults.results import SHORT_SLACK
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.demo import NOTICED_S
from gale.lab.feed import Watch

CHECKS_TIMEOUT_S = 1.0
REMOVED_WITHIN_S = SHORT_SLACK * (CHECKS_TIMEOUT_S + 0.5)
NODES = ("node-0", "node-1", "node-2")


def name_of(lab: Lab, private: str | None) -> str:
    return next(instance.name for instance in lab.status() if instance.private == private)


def leader(watch: Watch, lab: Lab) -> str:
    servers = lab.topology.api_servers
    until(lambda: view.missing_for_leader(watch.latest, servers, None), within_s=10)
    return name_of(lab, view.leader(watch.latest.values()))


def removed(watch: Watch, lab: Lab, node: str) -> str | None:
    return view.missing_for_removal(watch.latest, lab.topology.api_servers, node)


def routing(watch: Watch, lab: Lab) -> str | None:
    return view.missing_for_routing(watch.latest, lab.topology.api_servers, NODES)


def test_every_load_balancer_forwards_and_spreads_over_all_nodes(lab: Lab) -> None:
    with lab.traffic(rate=600) as traffic:
        until(lambda: None if sum(t.ok for t in traffic.totals.values()) >= 2_400 else "more requests", within_s=20)
    assert traffic.final is not None
    for endpoint in lab.topology.endpoints:
        tally = traffic.final.endpoints[endpoint]
        assert not tally.failed, tally.failures
        assert set(tally.nodes) == set(NODES)
        assert all(0.25 < tally.nodes[node] / tally.ok < 0.42 for node in NODES), tally.nodes


def test_a_killed_node_is_removed_everywhere_in_time_and_returns_after_its_checks(lab: Lab) -> None:
    with lab.watch(interval_s=0.05) as watch, lab.traffic() as traffic:
        until(lambda: routing(watch, lab), within_s=10)
        lab.kill("node-1")
        until(lambda: removed(watch, lab, "node-1"), within_s=REMOVED_WITHIN_S)
        gone_s = time.monotonic() + NOTICED_S
        until(lambda: None if traffic.between(gone_s).ok >= 200 else "requests without node-1", within_s=10)
        after = traffic.between(gone_s)
        assert not after.failed, after.failures
        assert "node-1" not in after.nodes
        lab.start("node-1")
        took_s = until(lambda: routing(watch, lab), within_s=STARTS_WITHIN_S)
        assert took_s >= 2 * CHECKS_TIMEOUT_S / 3  # three checks, a third of the timeout apart
        until(lambda: None if "node-1" in traffic.between(gone_s).nodes else "a request to node-1", within_s=5)


def test_the_leader_dies_without_one_failed_request_and_is_level_when_it_returns(lab: Lab) -> None:
    servers = lab.topology.api_servers
    with lab.watch(interval_s=0.05) as watch, lab.traffic(rate=300) as traffic:
        until(lambda: routing(watch, lab), within_s=10)
        first = leader(watch, lab)
        private = lab.topology.instance(first).private
        others = [server for server in servers if view.host(server) != private]
        began_s = time.monotonic()
        lab.kill(first)
        until(lambda: view.missing_for_leader(watch.latest, others, private), within_s=10)
        until(lambda: None if traffic.between(began_s).ok >= 600 else "requests without the leader", within_s=10)
        while_dead = traffic.between(began_s)
        assert not while_dead.failed, while_dead.failures  # through the dead one too: its kernel programs go on
        assert min(traffic.between(began_s, endpoint=e).ok for e in lab.topology.endpoints) > 100

        lab.kill("node-0")  # what the new leader decides takes effect
        until(lambda: view.missing_for_removal(watch.latest, others, "node-0"), within_s=REMOVED_WITHIN_S)
        lab.start("node-0")
        lab.start(first)
        until(lambda: routing(watch, lab), within_s=STARTS_WITHIN_S)
        until(lambda: view.missing_for_level(watch.latest, servers, "applied_index"), within_s=10)
