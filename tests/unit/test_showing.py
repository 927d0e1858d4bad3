"""What a person sees on a terminal: nothing is cut off where it is narrow, and no value is taken for something else."""

import re
from typing import Any

import pytest
from rich.console import Console

from gale.cli.showing import Answer, least_width, show
from gale.cli.tables import explanation_table, load_balancer_table, node_table

ADDRESSES = [f"192.168.1.{last}:9090" for last in (2, 3, 4)]
MAC = "ca:d6:9a:cd:cf:78"


def status(reason: str = "") -> dict[str, Any]:
    known = {"role": "follower", "applied_index": 17, "generation": 2, "config_hash": "3c70e1013165d616"}
    more = {"version": "0.2.0", "attachments": {"private": "tc", "public": "native"}, "reason": reason}
    node = {"id": "web-1", "address": "192.168.1.11", "phase": "routing", "weight": 1, "fails": 0, "banned_until": None}
    checks = {"checks": dict.fromkeys(ADDRESSES, 3), "reason": "", "drained": False}
    return {
        "load_balancers": [{"address": address, **known, **more} for address in ADDRESSES],
        "nodes": [{**node, **checks}],
        "degraded": [],
    }


def printed(told: dict[str, Any], width: int) -> str:
    console = Console(width=width, force_terminal=True, color_system=None)
    tables = [load_balancer_table(told), node_table(told)]
    console.width = least_width(console, tables)
    with console.capture() as written:
        for table in tables:
            console.print(table)
    return written.get()


@pytest.mark.parametrize("width", [40, 77, 80, 90, 100, 110, 120, 200])
@pytest.mark.parametrize(
    "reason", ["", "its configuration differs: node_health.checks_timeout is 3000 here, 5000 there"]
)
def test_no_word_is_cut_off_however_narrow_the_terminal(width: int, reason: str) -> None:
    text = printed(status(reason), width)
    assert "…" not in text
    assert all(text.count(f"{address}=3") == 1 for address in ADDRESSES)
    assert text.count("native") == 3


def test_the_usual_terminal_is_wide_enough() -> None:
    assert max(map(len, printed(status(), 80).splitlines())) <= 80


def test_a_wide_one_is_used_as_it_is() -> None:
    text = printed(status(), 200)
    assert "private tc, public native" in text
    assert re.search(r"  web-1|^ web-1  ", text, re.MULTILINE)


def test_a_mac_address_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    header = {"name": "ethernet", "fields": {"source": MAC, "destination": MAC}}
    part = {"address": ADDRESSES[0], "error": "", "verdict": "opened", "meaning": "m", "action": "redirect"}
    known = {
        "flow": None,
        "node": "",
        "node_address": "",
        "opening": True,
        "side": "public",
        "service": "",
        "slot": None,
    }
    told = {**part, **known, "interface": "", "headers": [header], "mode": "l4"}
    show(Answer(told, lambda: [explanation_table(told)]), "table")
    assert capsys.readouterr().out.count(MAC) == 2
