"""Flows of every mode and IP version at once, while machines die, are drained, replaced and restarted.

Of each flow it is known which node answers it, so what may break can be told from what may not.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from e2e.faults import scenes
from e2e.faults.results import SHORT_SLACK
from e2e.plane import clients
from e2e.plane.clients import CELLS, at
from e2e.waiting import until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.feed import Flows
from gale.lab.options import LabOptions

OPTIONS = LabOptions(modes=("l4", "l2", "l3"), ipv6=True, udp=True, virtual=True)
LEARNING_S = 3.2  # a bit more than LabOptions.learning_time
REMOVED_WITHIN_S = SHORT_SLACK * 1.5
STARTED_WITHIN_S = 45.0  # the programs are compiled, beside the load of the test
Cells = dict[tuple[str, int], Flows]


@contextmanager
def flows_everywhere(lab: Lab, lb: str = "lb-0", count: int = 30, protocol: str = "tcp") -> Iterator[Cells]:
    """Flows in every mode with both IP versions, all at the same time."""
    with ExitStack() as stack:
        yield {cell: stack.enter_context(clients.flows(lab, at(lab, *cell, lb), count, protocol)) for cell in CELLS}


def asked(cells: Cells, since_s: float) -> None:
    for kept in cells.values():
        clients.asked(kept, since_s)


def of_node(cells: Cells, node: str) -> dict[tuple[str, int], int]:
    """How many flows of each cell a node had when all were well."""
    return {cell: kept.rounds[0].nodes.get(node, 0) for cell, kept in cells.items()}


def check_nothing_crossed(cells: Cells) -> None:
    for cell, kept in cells.items():
        assert kept.last is not None
        assert (kept.last.crossed, kept.last.moved) == (0, 0), cell


def test_a_dead_node_takes_its_own_flows_with_it_and_these_are_reset(lab: Lab, faults: Faults) -> None:
    """Its machine is cut off, so that it says nothing: what ends its flows is the load balancers' doing."""
    with lab.watch(0.05) as watch, flows_everywhere(lab) as cells:
        had = of_node(cells, "node-1")
        assert all(had.values()), had
        faults.isolate("node-1")
        until(lambda: view.missing_for_removal(watch.latest, lab.servers, "node-1"), REMOVED_WITHIN_S)
        gone_s = time.monotonic()
        for mode, version in CELLS:
            assert "node-1" not in clients.curl(lab, at(lab, mode, version), 30)
        asked(cells, gone_s + 0.2)
    for cell, kept in cells.items():
        assert {broken.node for broken in kept.broken} == {"node-1"}, (cell, kept.broken)
        assert len(kept.broken) == had[cell], (cell, kept.broken)
        assert {broken.kind for broken in kept.broken} == {"reset"}, (cell, kept.broken)
    check_nothing_crossed(cells)


def test_nodes_come_and_go_and_no_request_fails(lab: Lab) -> None:
    """One is added, one drained and given back: in every mode flows stay where they are, and new ones go elsewhere."""
    with lab.watch(0.05) as watch:
        lab.stop("node-1")
        until(lambda: view.missing_for_removal(watch.latest, lab.servers, "node-1"), REMOVED_WITHIN_S)
        with flows_everywhere(lab) as cells, lab.traffic([at(lab, *cell) for cell in CELLS], rate=50) as traffic:
            lab.start("node-1")
            until(lambda: scenes.routing(lab, watch), STARTED_WITHIN_S)
            with lab.orders(["node-2"], kinds=["drain"], interval_s=0.1) as orders:
                until(lambda: scenes.missing_order(orders), within_s=10)
            until(lambda: view.missing_for_removal(watch.latest, lab.servers, "node-2"), within_s=10)
            for mode, version in CELLS:
                answered = clients.curl(lab, at(lab, mode, version), 30)
                assert "node-2" not in answered
                assert "node-1" in answered
            scenes.undrain(lab, watch)
            until(lambda: scenes.routing(lab, watch), within_s=10)
            asked(cells, time.monotonic() + 0.2)
    assert all(of_node(cells, "node-2").values()), "nothing would have moved"
    for cell, kept in cells.items():
        assert not kept.broken, (cell, kept.broken)
        assert kept.last is not None
        assert kept.last.alive == 30, cell
    check_nothing_crossed(cells)
    assert traffic.final is not None
    assert not traffic.final.total.failed, traffic.final.total.failures
    assert traffic.final.total.ok > 200


def test_a_dead_load_balancer_breaks_no_flow_through_others_nor_any_stateless_one(lab: Lab, faults: Faults) -> None:
    """The address of the dead one moves to another, as a router or VRRP would have it. A slot that has moved for the
    test before may not learn any more: what it learns, the others do not know."""
    time.sleep(LEARNING_S)
    with flows_everywhere(lab) as through_it, flows_everywhere(lab, "lb-1") as through_another:
        faults.isolate("lb-0")
        faults.move_address("lb-0", "lb-2")
        moved_s = time.monotonic()
        for mode, version in CELLS:
            clients.curl(lab, at(lab, mode, version), 30)
        asked(through_it, moved_s + 0.2)
        asked(through_another, moved_s + 0.2)
    for (mode, version), kept in through_it.items():
        assert mode == "l4" or not kept.broken, (mode, version, kept.broken)
        assert {broken.kind for broken in kept.broken} <= {"reset"}, (mode, version, kept.broken)
    for cell, kept in through_another.items():
        assert not kept.broken, (cell, kept.broken)
    check_nothing_crossed(through_it)
    check_nothing_crossed(through_another)


def test_a_restart_under_load_breaks_no_flow_and_fails_no_request(lab: Lab, long: bool) -> None:
    where = [at(lab, *cell) for cell in CELLS]
    with (
        lab.watch(0.05) as watch,
        flows_everywhere(lab) as cells,
        flows_everywhere(lab, protocol="udp", count=10) as datagrams,
        lab.traffic(where, rate=50) as traffic,
    ):
        lab.kill("lb-0")
        time.sleep(0.5)
        lab.start("lb-0")
        until(lambda: scenes.routing(lab, watch), STARTED_WITHIN_S)
        for _ in range(10 if long else 0):
            lab.stop("lb-0")
            stopped_s = time.monotonic()
            lab.start("lb-0")
            until(partial(scenes.answering, watch, lab.servers, stopped_s), STARTED_WITHIN_S)
        asked(cells, time.monotonic() + 0.2)
        asked(datagrams, time.monotonic())
    assert traffic.final is not None
    assert not traffic.final.total.failed, traffic.final.total.failures
    assert traffic.final.total.ok > 200
    for kept in (*cells.values(), *datagrams.values()):
        assert not kept.broken
    check_nothing_crossed(cells)
    check_nothing_crossed(datagrams)
