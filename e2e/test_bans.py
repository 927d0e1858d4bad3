"""A node that flaps is banned on every load balancer, stays out however well it behaves, and is admitted again."""

import time

from e2e.waiting import until
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.feed import Watch
from gale.lab.options import LabOptions

EXPIRY_S = 4.0
OPTIONS = LabOptions(black_list_after_fails=2, black_list_expiry="4s")


def entries(watch: Watch, node: str) -> list[dict[str, object]]:
    """What each load balancer says of one node."""
    statuses = [report.status for report in watch.latest.values() if report.status]
    return [entry for status in statuses for entry in status["nodes"] if entry["id"] == node]


def missing_phase(watch: Watch, lab: Lab, node: str, phase: str) -> str | None:
    phases = [entry["phase"] for entry in entries(watch, node)]
    everywhere = len(phases) == len(lab.topology.lbs) and set(phases) == {phase}
    return None if everywhere else f"{node} is {phases}, not {phase} everywhere"


def test_a_flapping_node_is_banned_and_admitted_again_after_the_ban(whole: Lab) -> None:
    with whole.watch(interval_s=0.05) as watch:
        until(lambda: missing_phase(watch, whole, "node-0", "routing"), within_s=10)
        whole.kill("node-0")
        until(lambda: missing_phase(watch, whole, "node-0", "failed"), within_s=1.5)
        assert {entry["fails"] for entry in entries(watch, "node-0")} == {1}
        whole.start("node-0")
        until(lambda: missing_phase(watch, whole, "node-0", "routing"), within_s=10)
        whole.kill("node-0")
        until(lambda: missing_phase(watch, whole, "node-0", "banned"), within_s=1.5)
        banned_s = time.monotonic()
        assert len({entry["banned_until"] for entry in entries(watch, "node-0")} - {None}) == 1

        whole.start("node-0")
        until(lambda: None if missing_phase(watch, whole, "node-0", "banned") else "the end of the ban", EXPIRY_S + 2)
        assert time.monotonic() - banned_s >= EXPIRY_S - 0.5
        until(lambda: missing_phase(watch, whole, "node-0", "routing"), within_s=5)
        assert {entry["fails"] for entry in entries(watch, "node-0")} == {0}
        until(lambda: view.missing_for_level(watch.latest, whole.topology.api_servers), within_s=1)
