"""Load balancers that do not reach each other: who may decide, what is told as done, and how soon all are level again.

The cut is at the switch, so nobody is told. What an isolated load balancer says is asked on its own machine.
"""

import itertools
import time
from dataclasses import dataclass

import pytest

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.faults import Faults
from gale.lab.feed import Orders, Watch

STEPS_DOWN_WITHIN_S = 0.7
REJOINS_WITHIN_S = 1.0
COMPACTED_AFTER = 5_500  # orders; the log is compacted once it has 5,000 entries


def missing_leader(lab: Lab, watch: Watch, names: list[str]) -> str | None:
    """What is missing until these load balancers name one of themselves."""
    asked = scenes.servers(lab, names)
    if missing := view.missing_for_leader(watch.latest, asked, None):
        return missing
    named = view.leader(watch.latest[server] for server in asked)
    return None if scenes.name_of(lab, named) in names else f"{named} is still named"


def follower_away(lab: Lab, faults: Faults, away_s: float) -> tuple[float, bool]:
    """Seconds from the heal until it is level, and whether leader and term stayed as they were, or the whole machine
    stood still, which deposes a leader too."""
    with scenes.stillness() as still, lab.watch(0.05, local=True) as watch:
        first = scenes.leader(lab, watch)
        (of_leader,) = scenes.servers(lab, [first])
        follower, other = scenes.others(lab, first)
        before = watch.said[of_leader].status
        assert before is not None
        with lab.watch(0.02, inside=follower, local=True) as alone:
            until(lambda: None if alone.said else "its own word", within_s=STARTS_WITHIN_S)
            faults.cut(follower)
            with lab.orders(["node-1"], names=[first, other], interval_s=0.5) as orders:
                time.sleep(away_s)
            assert not [order for order in orders.all if order.error], orders.all
            assert not scenes.own(alone)["quorum"]

            def behind() -> str | None:
                theirs, mine = watch.said[of_leader].status, scenes.own(alone)
                if not theirs or not mine.get("quorum"):
                    return "it sees no quorum"
                applied = mine["applied_index"], theirs["applied_index"]
                return None if applied[0] == applied[1] else f"it has applied {applied[0]} of {applied[1]}"

            faults.heal(follower)
            took_s = until(behind, within_s=40)
        time.sleep(0.5)
        after = watch.said[of_leader].status
        assert after is not None
        return took_s, still.deposes or (after["leader"], after["term"]) == (before["leader"], before["term"])


@pytest.mark.parametrize(
    "away_s", [5, pytest.param(40, marks=pytest.mark.long_form), pytest.param(120, marks=pytest.mark.long_form)]
)
def test_a_follower_comes_back_at_once_however_long_it_was_away(
    lab: Lab, faults: Faults, results: Results, away_s: float
) -> None:
    took_s, same = follower_away(lab, faults, away_s)
    within_s = results.allowed_s(REJOINS_WITHIN_S)
    results.judge(
        "9 partition of a follower",
        f"cut off for {away_s} s",
        f"level ≤ {within_s:g} s after the heal, leader and term unchanged",
        f"level after {took_s:.2f} s, leader and term {'unchanged' if same else 'CHANGED'}",
        took_s <= within_s and same,
    )


@dataclass(slots=True)
class StaleLeader:
    stepped_down_s: float
    elected_s: float
    level_s: float
    stale_reads: int
    false_writes: int


def leader_away(lab: Lab, faults: Faults) -> StaleLeader:
    """The leader is cut off while it is asked and told on its own machine."""
    with lab.watch(0.02, local=True) as watch:
        first = scenes.leader(lab, watch)
        rest = scenes.others(lab, first)
        with (
            lab.watch(0.02, inside=first, local=True) as alone,
            lab.orders(["node-1"], inside=first, interval_s=0.02, reads=1.0, clients=4) as reads,
        ):
            until(
                lambda: None if reads.done() and alone.said else "a read through the leader", within_s=STARTS_WITHIN_S
            )
            faults.cut(first)
            cut_s = time.monotonic()
            stepped_down_s = until(
                lambda: "it still sees a quorum" if scenes.own(alone).get("quorum") else None, within_s=5
            )
            until(lambda: missing_leader(lab, watch, rest), within_s=5)
            elected_s = time.monotonic() - cut_s
            with (
                lab.orders(["node-1"], names=rest, count=4, interval_s=0) as orders,
                lab.orders(["node-2"], inside=first, count=1) as refused,
            ):
                until(lambda: None if len(orders.all) == 4 and refused.all else "an answer to all orders", within_s=20)
            assert orders.done(), orders.all
            committed_s = orders.done()[0].ended_s
            time.sleep(0.3)
        stale = sum(read.began_s > committed_s for read in reads.done())
        faults.heal(first)
        level_s = scenes.until_level(watch, lab.servers, within_s=10)
    return StaleLeader(stepped_down_s, elected_s, level_s, stale, len(refused.done()))


def test_a_leader_that_is_cut_off_answers_as_one_no_more(
    lab: Lab, faults: Faults, results: Results, long: bool
) -> None:
    rounds = [leader_away(lab, faults) for _ in range(10 if long else 1)]
    down_s, stale = max(r.stepped_down_s for r in rounds), sum(r.stale_reads for r in rounds)
    false = sum(r.false_writes for r in rounds)
    within_s = results.allowed_s(STEPS_DOWN_WITHIN_S)
    results.judge(
        "10 stale leader",
        f"leader cut off, {len(rounds)} times",
        f"steps down ≤ {within_s} s, refuses writes, 0 strong reads served stale",
        f"worst {down_s:.2f} s, {false} writes taken, {stale} stale reads;"
        f" another leads after {max(r.elected_s for r in rounds):.2f} s at most,"
        f" level {max(r.level_s for r in rounds):.2f} s after the heal",
        down_s <= within_s and not stale and not false,
    )


@dataclass(slots=True)
class Pending:
    acknowledged: int
    false: int
    snapshots: int


def leader_away_with_orders(lab: Lab, faults: Faults, away_s: float, count: int) -> Pending:
    """Operators at a leader that nobody hears order node-2 about; the others give `count` orders about node-1."""
    with lab.watch(0.05, local=True) as watch:
        first = scenes.leader(lab, watch)
        rest = scenes.others(lab, first)
        with lab.orders(["node-2"], inside=first, count=3, interval_s=0) as orders:
            until(lambda: None if len(orders.done()) == 3 else "three orders", within_s=STARTS_WITHIN_S)
        drained = orders.all[-1].kind == "drain"
        faults.cut(first)
        cut_s = time.monotonic()
        with lab.orders(["node-2"], inside=first, clients=3, count=2, interval_s=0, seed=int(cut_s)) as pending:
            until(lambda: missing_leader(lab, watch, rest), within_s=5)
            snapshots = order(lab, rest, count)
            time.sleep(max(0.0, cut_s + away_s - time.monotonic()))
            faults.heal(first)
            scenes.until_level(watch, lab.servers, within_s=10)
            until(lambda: None if len(pending.all) == 6 else "an answer to all", within_s=15)
        with lab.orders(["node-2"], count=3, interval_s=0, reads=1.0) as reads:
            until(lambda: None if len(reads.done()) == 3 else "three reads", within_s=STARTS_WITHIN_S)
    final = {read.drained for read in reads.all}
    assert len(final) == 1, reads.all
    acknowledged = [order for order in pending.all if order.error is None]
    undecided = {order.kind == "drain" for order in pending.all if order.error}
    possible = {order.kind == "drain" for order in acknowledged} or {drained}
    return Pending(len(acknowledged), int(not final <= possible | undecided), snapshots)


def order(lab: Lab, names: list[str], count: int) -> int:
    """Give so many orders; returns how many load balancers wrote a snapshot."""
    files = [lab.store.state(name) / "snapshot" for name in names]

    def written() -> list[int]:
        return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]

    before = written()
    with lab.orders(["node-1"], names=names, clients=16, interval_s=0, keep=True) as orders:
        until(lambda: None if len(orders.all) >= count else f"{len(orders.all)} orders", within_s=120)
        assert len(orders.done()) > 0.99 * len(orders.all)
    time.sleep(0.2)
    return sum(old != new for old, new in zip(before, written(), strict=True))


def test_what_an_isolated_leader_could_not_commit_is_told_to_nobody_as_done(
    lab: Lab, faults: Faults, results: Results, long: bool
) -> None:
    """In the long form the others compact meanwhile, so that the isolated one is filled by a snapshot."""
    away_s, count = (8, COMPACTED_AFTER) if long else (3, 100)
    lab.stop("node-1")  # what is ordered of a node that does not route moves no slot, and is done soon
    rounds = [leader_away_with_orders(lab, faults, away_s, count) for _ in range(20 if long else 1)]
    false, told = sum(r.false for r in rounds), sum(r.acknowledged for r in rounds)
    results.judge(
        "2 isolated leader with pending orders",
        f"cut off ≥ {away_s} s while the others commit {count} orders, {len(rounds)} times",
        "0 false acknowledgements" + ("; the majority compacts meanwhile" if long else ""),
        f"{false} false, {told} of {6 * len(rounds)} told as done; {sum(r.snapshots for r in rounds)} snapshots",
        not false and (not long or all(r.snapshots for r in rounds)),
    )


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("one way is cut", marks=pytest.mark.long_form),
        "30 % are lost",
        pytest.param("two do not hear each other", marks=pytest.mark.long_form),
    ],
)
def test_half_broken_networks_do_not_stop_decisions(
    lab: Lab, faults: Faults, results: Results, long: bool, kind: str
) -> None:
    for_s = 60 if long else 5
    with lab.watch(0.05, local=True) as watch:
        first = scenes.leader(lab, watch)
        one, other = scenes.others(lab, first)
        began_s = time.monotonic()
        match kind:
            case "one way is cut":
                faults.lose(one, first)
            case "30 % are lost":
                for source in (first, one, other):
                    for target in {first, one, other} - {source}:
                        faults.lose(source, target, 30)
            case _:
                faults.part([one], [other])
        with lab.orders(["node-1"], interval_s=0.1, clients=3) as orders:
            until(lambda: scenes.missing_order(orders), within_s=STARTS_WITHIN_S)
            first_s = time.monotonic()
            time.sleep(for_s)
        faults.deliver()
        changes = len(scenes.leaderships(watch, began_s)) - 1
        level_s = scenes.until_level(watch, lab.servers, within_s=10)
    gap_s, done = longest_gap(orders, first_s, first_s + for_s), len(orders.done(first_s))
    results.judge(
        "12 half-broken network",
        f"{kind}, {for_s} s",
        f"≥ {1 / results.slack:g} commit a second, ≤ 3 leader changes",
        f"{done / for_s:.1f} commits a second, longest gap {gap_s:.2f} s, {changes} leader changes,"
        f" level {level_s:.2f} s after",
        done >= for_s / results.slack and changes <= 3,
    )


def longest_gap(orders: Orders, begin_s: float, end_s: float) -> float:
    """The longest time within which no order was told as done."""
    times = [begin_s, *sorted(order.ended_s for order in orders.done() if order.ended_s < end_s), end_s]
    return max(after - before for before, after in itertools.pairwise(times))
