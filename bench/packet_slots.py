"""How long a load balancer takes to change a slot table of a thousand nodes: worked out, and written to the map."""

import statistics
import time

from bench.packet_rig import SLOTS, Rig
from gale.core.slots import SlotTable, rebalance

NODES = 1000
CHANGES_EACH_ROUND = 5


def change_slots_ns(rounds: int) -> tuple[float, float]:
    """Median and spread. By turns a node goes away and comes back."""
    rig = Rig("l2")
    every = dict.fromkeys(range(1, NODES + 1), 1)
    table = rebalance(SlotTable.empty(SLOTS), every)
    took = []
    for change in range(2 * CHANGES_EACH_ROUND * rounds):
        gone = 1 + change // 2
        weights = every if change % 2 else {number: 1 for number in every if number != gone}
        begin = time.perf_counter_ns()
        table = rebalance(table, weights)
        rig.maps.set_slots("bench", table.owners)
        took.append(time.perf_counter_ns() - begin)
    first, median, third = statistics.quantiles(took, n=4, method="inclusive")
    return median, third - first
