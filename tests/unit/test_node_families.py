"""The metrics of a node: what they say, and what makes it ready."""

import asyncio
import shutil
import subprocess
from dataclasses import replace

import pytest

from gale.core.tally import Checks, Spent
from gale.web.exposition import exposition
from gale.web.node_families import OtherEnd, SeenNode, measured_node, out_of_service

TUNNEL = {("decapsulated", "pass"): 12, ("malformed", "drop"): 0}
A, B, C = (f"192.168.1.{last}:7070" for last in (2, 3, 4))


def seen() -> SeenNode:
    """A routes to this node, B is away, and for what C listens for it is not prepared."""
    ends = (
        OtherEnd(A, Checks(9, 8, 1, 0), "routing"),
        OtherEnd(B, Checks(3, 2, 0, 4)),
        OtherEnd(C, Checks(5, 5, 0, 0), "failed", "no route to C", "no route to C"),
    )
    return SeenNode(
        "0.2.0",
        ends,
        True,
        {"passed": Spent(7, 0.5), "failed": Spent()},
        {"address": 2},
        TUNNEL,
        5,
        certificate_ends_s=1.8e9,
    )


async def lines(what: SeenNode) -> list[str]:
    return b"".join(await exposition(measured_node(what))).decode().splitlines()


@pytest.mark.parametrize(
    "line",
    [
        'gale_build_info{version="0.2.0"} 1.0',
        f'gale_checks_sent_total{{load_balancer="{A}"}} 9.0',
        f'gale_check_answers_total{{load_balancer="{A}"}} 8.0',
        f'gale_check_refusals_total{{load_balancer="{A}"}} 1.0',
        f'gale_checks_failed_total{{load_balancer="{B}"}} 4.0',
        f'gale_load_balancer_answers{{load_balancer="{A}"}} 1.0',
        f'gale_load_balancer_answers{{load_balancer="{B}"}} 0.0',
        f'gale_told_phase{{load_balancer="{A}",phase="routing"}} 1.0',
        f'gale_serving{{load_balancer="{A}"}} 1.0',
        f'gale_serving{{load_balancer="{C}"}} 0.0',
        f'gale_prepared{{load_balancer="{C}"}} 0.0',
        'gale_prepared_changes{kind="address"} 2.0',
        'gale_prepared_changes{kind="setting"} 0.0',
        'gale_tunnel_packets_total{action="pass",verdict="decapsulated"} 12.0',
        'gale_tunnel_packets_total{action="drop",verdict="malformed"} 0.0',
        "gale_service_well 1.0",
        'gale_probes_total{result="passed"} 7.0',
        'gale_probe_seconds_total{result="passed"} 0.5',
        'gale_probes_total{result="failed"} 0.0',
        'gale_refused_total{port="web"} 5.0',
        "gale_certificate_expiry_timestamp_seconds 1.8e+09",
    ],
)
async def test_what_is_known_is_told(line: str) -> None:
    assert line in await lines(seen())


async def test_what_is_not_known_is_not() -> None:
    told = await lines(replace(seen(), certificate_ends_s=None))
    assert not [line for line in told if "certificate" in line or f'gale_told_phase{{load_balancer="{B}"' in line]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_to_say() -> None:
    text = "\n".join([*asyncio.run(lines(seen())), ""])
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr, checked.stdout) == (0, "", "")


def test_it_is_ready_when_all_that_answer_route_to_it() -> None:
    a, b, c = seen().load_balancers
    assert out_of_service(seen()) == (f"{C}: this node is failed: no route to C",)
    assert out_of_service(replace(seen(), load_balancers=(a, b))) == ()
    assert out_of_service(replace(seen(), load_balancers=(b,))) == ("no load balancer answers",)
    drained = replace(c, phase="draining", reason="")
    assert out_of_service(replace(seen(), load_balancers=(a, drained))) == (f"{C}: this node is draining",)
