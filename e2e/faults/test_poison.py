"""A command that nobody can apply, in the log of all."""

import subprocess
import sys
import time

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab.cluster import Lab
from gale.lab.processes import entering
from gale.rpc import raft_codec

NAMES = ("lb-0", "lb-1", "lb-2")
NEXT_COMMIT_S = 0.1


def test_a_command_that_nobody_can_apply_is_skipped_by_all(lab: Lab, results: Results, long: bool) -> None:
    """It comes from one that speaks as lb-2, from its address, while lb-2 is down: gale itself cannot make it."""
    greeting = scenes.first_frame(lab, "lb-2", "lb-0").hex()
    lab.stop("lb-2")
    poison = raft_codec.encode({"type": "apply_command", "command": b"\0" + b"\xff poison"})
    with lab.watch(0.1, local=True) as watch:
        rest = scenes.servers(lab, ["lb-0", "lb-1"])
        scenes.until_level(watch, rest, within_s=10)
        leading = scenes.leader(lab, watch, among=["lb-0", "lb-1"])
        at = f"{lab.topology.instance(leading).private}:{scenes.RAFT_PORT}"
        command = [sys.executable, "-P", str(scenes.ATTACKS), "--kind=say", f"--at={at}", f"--hello={greeting}"]
        with lab.orders(["node-1"], names=[leading], interval_s=0.01) as orders:
            until(lambda: scenes.missing_order(orders), within_s=STARTS_WITHIN_S)
            place = lab.topology.instance("lb-2").namespace
            began_s = time.monotonic()
            subprocess.run(
                entering(place, [*command, f"--frames={poison.hex()}", "--seconds=1"]), timeout=20, check=True
            )
            until(lambda: None if skipped(lab, "lb-0") and skipped(lab, "lb-1") else "the poison", within_s=10)
            skipped_s = time.monotonic()
            until(lambda: scenes.missing_order(orders, skipped_s), within_s=10)
            time.sleep(0.3)
        met = [order for order in orders.all if order.ended_s >= began_s]
        failed = sum(order.error is not None for order in met)
        percent, gap_s = (100, max(order.took_s for order in met)) if long else scenes.slow_s([o.took_s for o in met])
        lab.start("lb-2")
        scenes.until_level(watch, lab.servers, within_s=STARTS_WITHIN_S)
    counts = {name: skipped(lab, name) for name in NAMES}
    within_s = results.allowed_s(NEXT_COMMIT_S)
    results.judge(
        "15 poison command",
        "an entry that is no command, by one in a load balancer's place",
        f"each skips it once, next commits ≤ {1000 * within_s:.0f} ms (p{percent}), 0 fail",
        f"skipped {counts}, p{percent} {1000 * gap_s:.0f} ms of {len(met)}, {failed} failed",
        set(counts.values()) == {1} and gap_s <= within_s and not failed,
    )


def skipped(lab: Lab, name: str) -> int:
    return lab.log(name).count("could not be applied and is skipped")
