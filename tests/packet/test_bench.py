"""The benchmark of the packet path: its figures have the form that bench/ collects, and none has grown.

Machines differ, so a figure is compared by the floor of its own run: what an empty program costs here, and cost there.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from bench.__main__ import RESULTS
from bench.packet import Figure, measure
from bench.packet_rig import Family
from bench.packet_slots import change_slots_ns
from bench.packet_table import DOCUMENT, table
from bench.packet_wire import through_wires

KEYS = {"mode", "ip", "protocol", "case", "flows", "ns", "floor_ns", "spread"}
CASES = {"established", "parse only", "no service", "malformed"}
CASES_OF_L4 = CASES | {"back to the client", "new"}
GROWTH = 1.2
NOISE_NS = 6
"""Of a machine that does other things as well, beside the spread of the figure."""
ATTEMPTS = 4
ROUNDS, PACKETS = 5, 100_000

Row = tuple[str, int, str, str, int]


@pytest.fixture
def one_cpu() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def committed() -> dict[Row, Figure]:
    return {
        row(figure): figure for figure in (Figure(**it) for it in json.loads((RESULTS / "packet.json").read_text()))
    }


def row(figure: Figure) -> Row:
    return figure.mode, figure.ip, figure.protocol, figure.case, figure.flows


def bound_ns(then: Figure, now: Figure) -> float:
    slower = max(1.0, now.floor_ns / then.floor_ns) if then.floor_ns else 1.0
    return slower * (GROWTH * then.ns + then.spread) + NOISE_NS


@pytest.mark.usefixtures("bpf", "one_cpu")
@pytest.mark.parametrize("mode", ["l2", "l3", "l4"])
def test_no_figure_has_grown_by_more_than_a_fifth(mode: str) -> None:
    """The best of some attempts: noise only ever adds."""
    before = committed()
    families = [Family(4, "tcp"), Family(6, "udp")]
    too_slow: dict[Row, str] = {}
    for _ in range(ATTEMPTS):
        figures = measure(mode, ROUNDS, PACKETS, [1], families)
        assert {figure.case for figure in figures} == (CASES_OF_L4 if mode == "l4" else CASES)
        bounds = {row(now): (now.ns, bound_ns(before[row(now)], now)) for now in figures}
        again = {where: f"{ns} ns, at most {most:.0f}" for where, (ns, most) in bounds.items() if ns > most}
        too_slow = {where: text for where, text in again.items() if where in too_slow or not too_slow}
        if not too_slow:
            return
    pytest.fail(f"in {ATTEMPTS} attempts: {too_slow}")


def test_every_figure_is_there() -> None:
    """Of what bench/results/packet.json is made for."""
    figures = committed()
    assert all(asdict(figure).keys() == KEYS for figure in figures.values())
    for mode, cases in (("l2", CASES), ("l3", CASES), ("l4", CASES_OF_L4)):
        for version, protocol in ((4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp")):
            there = {(case, flows) for m, v, p, case, flows in figures if (m, v, p) == (mode, version, protocol)}
            assert {case for case, _ in there} >= cases
            counts = {1, 10_000, 1 << 17, 1 << 20} if mode == "l4" else {1, 1 << 20}
            assert {flows for case, flows in there if case == "established"} == counts
    assert {mode for mode, _, _, case, _ in figures if case == "through veth"} == {"l2", "l3", "l4"}


def test_the_documented_figures_are_these() -> None:
    """`python -m bench.packet_table` writes them there."""
    assert table(json.loads((RESULTS / "packet.json").read_text())) in DOCUMENT.read_text()


@pytest.mark.usefixtures("bpf", "one_cpu")
def test_packets_come_through_wires() -> None:
    figures = through_wires(2, 20_000, max(os.sched_getaffinity(0)))
    assert [mode for mode, *_ in figures] == ["l2", "l3", "l4"]
    assert all(forwarder > 0 and floor > 0 for _, forwarder, floor, _ in figures)


@pytest.mark.usefixtures("bpf")
def test_a_slot_table_is_changed_in_ten_milliseconds() -> None:
    """Of a thousand nodes. Twice that here, beside other tests."""
    median_ns, _ = change_slots_ns(2)
    assert median_ns < 20e6
