"""Everything at once: operators order and ask while load balancers are killed, stopped and cut off at random.

What they were told must be explained by one order after the other, and at the end all replicas hold the same.
"""

import random
import time
from collections import Counter
from typing import Any

from e2e.faults import scenes
from e2e.faults.history import linearizable
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.feed import Orders, Watch

NODES = ("node-1", "node-2")
CLIENTS = 8
CONVERGED_WITHIN_S = 3.0


def trouble(lab: Lab, faults: Faults, chance: random.Random) -> str:
    """One fault and its end, at a time when all is well; returns what it was."""
    names = [lb.name for lb in lab.topology.lbs]
    name, other = chance.sample(names, 2)
    kind = chance.choice(["kill", "kill two", "pause", "cut", "one way", "loss"])
    for_s = chance.uniform(0.3, 2.0)
    match kind:
        case "kill" | "kill two":
            down = [name, other] if kind == "kill two" else [name]
            for one in down:
                lab.kill(one)
            time.sleep(for_s)
            for one in down:
                lab.start(one)
            time.sleep(1.0)  # a start takes as long
        case "pause":
            faults.pause(name)
            time.sleep(for_s)
            faults.resume(name)
        case "cut":
            faults.cut(name)
            time.sleep(for_s)
            faults.heal(name)
        case "one way":
            faults.lose(name, other)
            time.sleep(for_s)
            faults.deliver()
        case "loss":
            for source in names:
                for target in set(names) - {source}:
                    faults.lose(source, target, 30)
            time.sleep(for_s)
            faults.deliver()
    time.sleep(chance.uniform(0, 1.0))
    return kind


def replicas(watch: Watch) -> dict[str, Any]:
    """What each load balancer has of the nodes and of itself."""
    statuses = {server: report.status for server, report in watch.latest.items() if report.status}
    return {server: (status["generation"], status["nodes"]) for server, status in statuses.items()}


def differ(lab: Lab, watch: Watch) -> str | None:
    held = replicas(watch)
    if len(held) < len(lab.servers):
        return f"{len(held)} of {len(lab.servers)} answer"
    first, *rest = held.values()
    if any(one != first for one in rest):
        return f"they differ: {held}"
    own = {server: view.own_entry(watch.latest[server]) for server in lab.servers}
    maps = {server: entry["generation"] if entry else None for server, entry in own.items()}
    return None if set(maps.values()) == {first[0]} else f"the maps are not of generation {first[0]}: {maps}"


def unstarted(lab: Lab, watch: Watch) -> str | None:
    """What is missing until all answer, with a quorum or without: how long a start takes is not measured here."""
    silent = [server for server, report in watch.latest.items() if not report.status]
    return f"an answer of {silent}" if silent else None


def live_through(lab: Lab, faults: Faults, seed: int, for_s: float) -> tuple[Orders, dict[str, int], float]:
    """What was told, which faults there were, and how long after the end all hold the same."""
    chance, troubles = random.Random(seed), Counter[str]()
    with lab.watch(0.1) as watch:
        until(lambda: scenes.routing(lab, watch, ["node-0"]), within_s=STARTS_WITHIN_S)
        with lab.orders(NODES, clients=CLIENTS, interval_s=0.1, reads=0.4, seed=seed) as orders:
            end_s = time.monotonic() + for_s
            while time.monotonic() < end_s:
                troubles[trouble(lab, faults, chance)] += 1
            faults.mend()
            until(lambda: unstarted(lab, watch), within_s=STARTS_WITHIN_S)
            healed_s = time.monotonic()
            until(lambda: scenes.missing_order(orders, healed_s), within_s=15)
        level_s = until(lambda: differ(lab, watch), within_s=15)
    return orders, dict(troubles), level_s


def test_no_history_is_without_an_explanation(lab: Lab, faults: Faults, results: Results, long: bool) -> None:
    for seed in range(5) if long else (int(time.time()),):
        for_s = 60 if long else 5
        orders, troubles, level_s = live_through(lab, faults, seed, for_s)
        unexplained = [node for node in NODES if not linearizable(orders.all, node)]
        within_s = results.allowed_s(CONVERGED_WITHIN_S)
        results.judge(
            "4 history under a nemesis",
            f"seed {seed}, {for_s} s, {CLIENTS} operators, {sum(troubles.values())} faults: {troubles}",
            f"0 histories unexplained; replicas and maps equal ≤ {within_s:g} s after",
            f"{len(orders.done())} told as done, {len(orders.all) - len(orders.done())} not known;"
            f" unexplained: {unexplained or 'none'}; equal after {level_s:.1f} s",
            not unexplained and level_s <= within_s,
        )
