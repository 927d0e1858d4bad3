"""The measurement of bench/traffic.py in its shortest form: that its figures are there, and those of what it says."""

import os

import pytest

from bench import asking, contestants, peers
from bench.stand import FORWARDER_CORE, OTHERS_CORE, Stand, stand

pytestmark = [
    pytest.mark.skipif(bool(peers.missing()), reason=f"no {', '.join(peers.missing())}: bench.traffic installs it"),
    pytest.mark.skipif(
        not {OTHERS_CORE, FORWARDER_CORE} <= os.sched_getaffinity(0), reason="the forwarder needs a core of its own"
    ),
]
KEPT = "requests, kept"


def asked(box: Stand, name: str) -> dict[str, asking.Figures]:
    """Requests through all that one contestant's turn brings."""
    with contestants.CONTESTANTS[name](box) as found:
        box.wire()
        return {it.contestant: asking.asked_cases()[KEPT](box, it, 1) for it in found}


def test_gale_and_haproxy_take_turns_in_one_box() -> None:
    with stand("gale-e2e-bench") as box:
        contestants.detach_gale(box)
        figures = asked(box, "HAProxy") | asked(box, "gale")
    assert set(figures) == {"HAProxy", "gale l2", "gale l3", "gale l4"}
    for contestant, found in figures.items():
        assert found["requests"][1] > 100, contestant
        assert 0 < found["p50"][1] <= found["p99"][1] <= found["p99.9"][1], contestant
        _, per_request_us = found["forwarder's CPU"]
        assert 0 < per_request_us * 1e-6 * found["requests"][1] < 1.3, f"{contestant}: more than the forwarder's core"
