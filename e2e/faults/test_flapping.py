"""A node that comes and goes while the leaders do: every fall counts once, every ban is the same everywhere."""

import time

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.feed import Watch
from gale.lab.options import LabOptions

CHECKS_TIMEOUT_S = 1.0
FAILS_TO_BAN, EXPIRY_S = 2, 4.0
ELECTION_S = 1.2
OPTIONS = LabOptions(black_list_after_fails=FAILS_TO_BAN, black_list_expiry="4s")
NODE = "node-1"


def seen(lab: Lab, watch: Watch, names: list[str]) -> list[tuple[str, int]]:
    """Phase and fails of the node as each of these load balancers tells them."""
    reports = [watch.said.get(server) for server in scenes.servers(lab, names)]
    statuses = [report.status for report in reports if report and report.status]
    return [(node["phase"], node["fails"]) for status in statuses for node in status["nodes"] if node["id"] == NODE]


def missing(lab: Lab, watch: Watch, names: list[str], expected: tuple[str, int]) -> str | None:
    told = seen(lab, watch, names)
    return None if told == [expected] * len(names) else f"{NODE} is {told}, not {expected} everywhere"


def fall(lab: Lab, watch: Watch, names: list[str]) -> float:
    """Kill the node; returns the seconds until none of these load balancers routes to it."""
    began_s = time.monotonic()
    lab.kill(NODE)
    servers = scenes.servers(lab, names)
    until(lambda: view.missing_for_removal(watch.latest, servers, NODE), within_s=10)
    return time.monotonic() - began_s


def ban_ends(lab: Lab, watch: Watch, names: list[str]) -> set[str]:
    """When its ban ends, as each of these load balancers tells."""
    reports = [watch.said.get(server) for server in scenes.servers(lab, names)]
    statuses = [report.status for report in reports if report and report.status]
    return {node["banned_until"] for status in statuses for node in status["nodes"] if node["id"] == NODE}


def banned_since(watch: Watch, since_s: float) -> float:
    """When a load balancer first said so, after a monotonic time."""
    return min(report.at_s for report in watch.since(since_s) if view.phases(report).get(NODE) == "banned")


def flap(lab: Lab, watch: Watch, fails: int, *, kill_the_leader: bool) -> tuple[float, str | None]:
    """One fall, and back again, when a ban came of it after that. Returns how long the fall took, and what was wrong
    with the count or the ban."""
    everybody = scenes.others(lab)
    if kill_the_leader:
        first = scenes.leader(lab, watch)
        lab.kill(first)
        rest = scenes.others(lab, first)
    else:
        rest = everybody
    killed_s = time.monotonic()
    took_s, banned = fall(lab, watch, rest), fails == FAILS_TO_BAN
    time.sleep(0.3)  # for a second count, if there is one
    wrong = missing(lab, watch, rest, ("banned" if banned else "failed", fails))
    if banned and len(ends := ban_ends(lab, watch, rest)) != 1:
        wrong = wrong or f"its ban ends at {ends}"
    if kill_the_leader:
        lab.start(first)
    lab.start(NODE)
    if banned:
        until(
            lambda: None if set(seen(lab, watch, rest)) - {("banned", fails)} else "the end of the ban", EXPIRY_S + 10
        )
        if (lasted_s := time.monotonic() - banned_since(watch, killed_s)) < EXPIRY_S - 0.5:
            wrong = wrong or f"the ban of {EXPIRY_S} s ended after {lasted_s:.1f} s"
    until(lambda: scenes.routing(lab, watch), STARTS_WITHIN_S)
    return took_s, wrong or (missing(lab, watch, everybody, ("routing", 0)) if banned else None)


def flaps(lab: Lab, count: int, *, kill_the_leader: bool) -> tuple[float, list[str]]:
    """The longest fall, and everything that was wrong."""
    with lab.watch(0.05) as watch:
        until(lambda: scenes.routing(lab, watch), within_s=10)
        start = seen(lab, watch, ["lb-0"])[0][1]
        rounds = [
            flap(lab, watch, (start + number) % FAILS_TO_BAN + 1, kill_the_leader=kill_the_leader)
            for number in range(count)
        ]
    return max(took_s for took_s, _ in rounds), [wrong for _, wrong in rounds if wrong]


def test_a_flapping_node_is_out_in_time_and_banned_when_due(lab: Lab, results: Results, long: bool) -> None:
    count = 12 if long else FAILS_TO_BAN
    worst_s, wrong = flaps(lab, count, kill_the_leader=False)
    within_s = results.allowed_s(CHECKS_TIMEOUT_S + 0.5)
    results.judge(
        "19 node flapping",
        f"{count} falls, a ban after every {FAILS_TO_BAN}",
        f"out ≤ {within_s} s, each counted once on all three, bans of {EXPIRY_S:g} s, no fails after",
        f"worst {worst_s:.2f} s; wrong: {wrong or 'none'}",
        worst_s <= within_s and not wrong,
    )


def test_a_fall_that_meets_a_change_of_leader_counts_once(lab: Lab, results: Results, long: bool) -> None:
    count = 20 if long else 1
    worst_s, wrong = flaps(lab, count, kill_the_leader=True)
    within_s = results.allowed_s(CHECKS_TIMEOUT_S + ELECTION_S + 0.5)
    results.judge(
        "19 node flapping",
        f"{count} falls, the leader killed at the same moment",
        f"each counted once, out ≤ {within_s:.1f} s",
        f"wrong counts: {wrong or 'none'}; worst {worst_s:.2f} s",
        not wrong and worst_s <= within_s,
    )
