"""A leader that is stopped for ten seconds and goes on as if nothing had happened."""

import time

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import until
from gale.lab.cluster import Lab
from gale.lab.faults import Faults

STOPPED_S = {False: 3, True: 10}
CONVERGED_WITHIN_S = 1.0


def pause_the_leader(lab: Lab, faults: Faults, long: bool) -> tuple[float, int, scenes.UnderLoad]:
    """Seconds from the end of the pause until all are level, terms with two leaders, and the load on it."""
    with lab.watch(0.05, local=True) as watch:
        first = scenes.leader(lab, watch)
        (of_first,) = scenes.servers(lab, [first])
        rest = scenes.others(lab, first)
        with scenes.under_load(lab, first, long) as load:
            old = watch.latest[of_first].status
            assert old is not None
            faults.pause(first)
            stopped_s = time.monotonic()
            with lab.orders(["node-1"], names=rest, interval_s=0.1) as orders:
                until(lambda: None if orders.done(stopped_s) else "an order of the others", within_s=5)
                time.sleep(max(0.0, stopped_s + STOPPED_S[long] - time.monotonic()))
            faults.resume(first)
            resumed_s = time.monotonic()
            with lab.orders(["node-2"], names=[first], count=20, interval_s=0.01):
                scenes.until_level(watch, lab.servers, within_s=10)
                level_s = time.monotonic() - resumed_s
            time.sleep(0.5)
    terms = [term for term, _ in scenes.leaderships(watch, resumed_s)]
    assert max(terms) > old["term"], "nobody else was elected"
    return level_s, len(terms) - len(set(terms)), load


def test_a_leader_that_was_stopped_leads_no_more(lab: Lab, faults: Faults, results: Results, long: bool) -> None:
    rounds = [pause_the_leader(lab, faults, long) for _ in range(5 if long else 1)]
    least = min(load.rate for _, _, load in rounds)
    worst_s, twice = max(level_s for level_s, _, _ in rounds), sum(twice for _, twice, _ in rounds)
    failed = sum(load.failed for _, _, load in rounds)
    within_s = results.allowed_s(CONVERGED_WITHIN_S)
    results.judge(
        "11 SIGSTOP of the leader",
        f"{STOPPED_S[long]} s, then SIGCONT, {len(rounds)} times, ≥ {least:.0f} requests/s",
        f"level ≤ {within_s:g} s, never two leaders in a term, 0 failed requests",
        f"level after {worst_s:.2f} s, {twice} terms with two, {failed} failed",
        worst_s <= within_s and not twice and not failed,
    )
