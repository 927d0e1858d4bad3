"""What gale's programs log: in which form, and how much of what strangers can cause."""

import json
import os
import pty
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from gale.changes import CHANGES_MAX, Changes
from gale.controller import Controller
from gale.core.commands import Announce
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import NodeInfo, Transition
from gale.log import LINES_MAX, Sparing
from gale.memory import MemoryConsensus, MemoryDataplane, SetClock

ME = "127.0.0.1:9090"
SAY = """
import logging, structlog
from gale.log import configure
configure("info", "{form}")
structlog.get_logger().info("node web: routing -> failed", cause='missed "twice"', index=7)
for number in range(30):
    logging.getLogger("library").warning("strangers %d\\nsay", number)
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger().exception("a fault")
"""


def said(form: str) -> list[str]:
    program = [sys.executable, "-c", SAY.format(form=form)]
    return subprocess.run(program, capture_output=True, text=True, check=True, timeout=30).stderr.splitlines()


def test_json_is_one_object_a_line_also_of_libraries_and_faults() -> None:
    lines = [json.loads(line) for line in said("json")]
    assert len(lines) == 1 + LINES_MAX + 1
    assert lines[0].pop("timestamp")
    assert lines[0] == {"event": "node web: routing -> failed", "cause": 'missed "twice"', "index": 7, "level": "info"}
    assert (lines[1]["event"], lines[1]["level"]) == ("strangers 0\nsay", "warning")
    assert lines[-1]["level"] == "error"
    assert "ZeroDivisionError" in lines[-1]["exception"]


def test_text_is_key_and_value() -> None:
    line = said("text")[0]
    assert 'level=info event="node web: routing -> failed"' in line
    assert line.endswith('cause="missed \\"twice\\"" index=7')
    assert "\x1b" not in line


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals(variables: dict[str, str], coloured: bool) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    ours, theirs = pty.openpty()
    try:
        program = [sys.executable, "-c", SAY.format(form="text")]
        subprocess.run(program, stderr=theirs, check=True, timeout=30, env={**plain, **variables})
        shown = os.read(ours, 1 << 16)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"routing -> failed" in shown
    assert (b"\x1b[" in shown) == coloured


def test_what_is_beyond_the_bound_is_told_as_a_number() -> None:
    sparing = Sparing("more than this", most=2)
    with capture_logs() as lines:
        assert [sparing.may(now_ms) for now_ms in (5_000, 5_100, 5_200, 5_300, 5_999)] == [
            True,
            True,
            False,
            False,
            False,
        ]
        sparing.settle(5_999)
        assert lines == []
        sparing.settle(6_000)
        sparing.settle(7_000)
        assert sparing.may(7_001)
    assert lines == [{"event": "more than this", "lines": 3, "log_level": "warning"}]


@pytest.fixture
def controller() -> Controller:
    shared = SharedConfig(HealthPolicy(3, 1_000), (Service("default", 8080, 80),))
    me = Announce(0, ME, "127.0.0.1:1", "0.2.0", shared, enforces=False, leads=False)
    return Controller(me, MemoryConsensus(ME), MemoryDataplane(), SetClock())


def test_refusals_with_ever_new_names_do_not_fill_the_disk(controller: Controller) -> None:
    with capture_logs() as lines:
        for number in range(5_000):
            controller._refuse(NodeInfo(f"stranger-{number}", "10.0.0.9"), "the name is taken")
    assert len(lines) == LINES_MAX


def test_a_thousand_changes_at_once_do_not_either() -> None:
    many = tuple(Transition(n, 0, f"node web-{n}", "routing", "failed", "missed") for n in range(1, 1_001))
    changes = Changes()
    with capture_logs() as lines:
        changes.tell(many, 1_000_000, replayed=False)
        changes.tell(many, 1_000_000 + 1_000, replayed=False)
    assert len(lines) == CHANGES_MAX + 1
    assert lines[-1]["lines"] == 1_000 - CHANGES_MAX
