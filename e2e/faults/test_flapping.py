"""A node that comes and goes while the leaders do: every fall counts once, every ban is the same everywhere."""

import time

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.feed import Watch
from gale.lab.options import LabOptions

CHECKS_TIMEOUT_S = 1.0
FAILS_TO_BAN, EXPIRY_S = 3, 4.0
ELECTION_S = 1.2
OPTIONS = LabOptions(black_list_after_fails=FAILS_TO_BAN, black_list_expiry="4s")
NODE = "node-1"


def seen(lab: Lab, watch: Watch, names: list[str]) -> list[tuple[str, int]]:
    """Phase and fails of the node as each of these load balancers tells them."""
    reports = [watch.latest.get(server) for server in scenes.servers(lab, names)]
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
    until(lambda: view.missing_for_removal(watch.latest, servers, NODE), CHECKS_TIMEOUT_S + ELECTION_S + 2)
    return time.monotonic() - began_s


def flap(lab: Lab, watch: Watch, fails: int, *, kill_the_leader: bool) -> tuple[float, str | None]:
    """One fall, and back again. Returns how long the fall took, and what was wrong with the count."""
    everybody = scenes.others(lab)
    if kill_the_leader:
        first = scenes.leader(lab, watch)
        lab.kill(first)
        rest = scenes.others(lab, first)
    else:
        rest = everybody
    took_s = fall(lab, watch, rest)
    time.sleep(0.3)  # for a second count, if there is one
    expected = ("banned" if fails == FAILS_TO_BAN else "failed", fails)
    wrong = missing(lab, watch, rest, expected)
    if kill_the_leader:
        lab.start(first)
    lab.start(NODE)
    within_s = (EXPIRY_S if fails == FAILS_TO_BAN else 0) + 15
    until(lambda: scenes.routing(lab, watch), within_s)
    return took_s, wrong


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
    count = 12 if long else 1
    worst_s, wrong = flaps(lab, count, kill_the_leader=False)
    results.judge(
        "19 node flapping",
        f"{count} falls, a ban after every {FAILS_TO_BAN}",
        f"out ≤ {CHECKS_TIMEOUT_S + 0.5} s, each counted once on all three",
        f"worst {worst_s:.2f} s; wrong counts: {wrong or 'none'}",
        worst_s <= CHECKS_TIMEOUT_S + 0.5 and not wrong,
    )


def test_a_fall_that_meets_a_change_of_leader_counts_once(lab: Lab, results: Results, long: bool) -> None:
    count = 20 if long else 1
    worst_s, wrong = flaps(lab, count, kill_the_leader=True)
    results.judge(
        "19 node flapping",
        f"{count} falls, the leader killed at the same moment",
        f"each counted once, out ≤ {CHECKS_TIMEOUT_S + ELECTION_S + 0.5:.1f} s",
        f"wrong counts: {wrong or 'none'}; worst {worst_s:.2f} s",
        not wrong and worst_s <= CHECKS_TIMEOUT_S + ELECTION_S + 0.5,
    )
