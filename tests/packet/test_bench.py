"""The benchmark of the packet path: its figures have the form that bench/ collects, and none has grown.

bench/growth.py says how a figure is compared. A check that cannot fail says nothing, so slower programs are measured
too, and must be found.
"""

import json
import os
from collections.abc import Iterator

import pytest

from bench.growth import FAMILIES, growth, judged, path_of_figures
from bench.kernel import NodeTable
from bench.packet import Case
from bench.packet_rig import NODES, Rig, node_addresses
from bench.packet_slots import change_slots_ns
from bench.packet_wire import through_wires
from bench.page import RESULTS
from gale.dataplane.compiler import source

KEYS = {"mode", "ip", "protocol", "case", "flows", "ns", "floor_ns", "spread"}
CASES = {"established", "parse only", "no service", "malformed"}
CASES_OF_L4 = CASES | {"back to the client", "back, verified by the card", "new"}

HASH_LOOP = b"""
    for (__u32 turn = 0, hash = packet->length; turn < 64; turn++) {
        hash = (hash ^ turn) * 0x9e3779b1;
        asm volatile("" : "+r"(hash));
    }
"""
WHERE = b"    if (WITH_L4 && listener->mode == L4)\n        return nat_forward("
"""In the way of every packet for a service, and of no other."""


@pytest.fixture
def one_cpu() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("bpf", "one_cpu")
@pytest.mark.parametrize("mode", ["l2", "l3", "l4"])
def test_no_figure_has_grown_by_more_than_a_fifth(mode: str) -> None:
    found = growth(mode)
    assert {each.case.name for each in found} == (CASES_OF_L4 if mode == "l4" else CASES)
    assert not [str(each) for each in found if each.too_much]


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("bpf", "one_cpu")
@pytest.mark.parametrize("mode", ["l2", "l4"])
def test_a_slower_program_is_found(mode: str) -> None:
    """A loop of some multiplications, and only where it stands; first packets meet it too, but are dear already."""
    text = source()
    assert text.count(WHERE) == 1
    found = growth(mode, text.replace(WHERE, HASH_LOOP + WHERE), FAMILIES[:1], slow={"established", "new"})
    assert {each.case.name for each in found if each.too_much} - {"new"} == {"established"}


@pytest.mark.parametrize(("case_ns", "too_much"), [(150, False), (154, False), (155, True)])
def test_a_figure_may_grow_by_a_fifth(case_ns: int, too_much: bool) -> None:
    """Of 100 ns over a floor of 30, and by what rounding makes. The least of each counts."""
    case = Case("any", FAMILIES[0], "", "", "", b"", 0, 1, frozenset())
    grown = judged("l4", case, [(130, 31), (190, 60)], [(case_ns + 70, 30), (case_ns, 39)])
    assert (grown.then_ns, grown.too_much) == (100, too_much)


def test_the_path_of_the_figures_is_whole() -> None:
    text = path_of_figures()
    assert b"int gale_public(" in text
    assert b'#include "' not in text


def test_every_figure_is_there() -> None:
    """Of what bench/results/packet.json is made for."""
    figures = json.loads((RESULTS / "packet.json").read_text())
    assert all(figure.keys() == KEYS for figure in figures)
    rows = [(it["mode"], it["ip"], it["protocol"], it["case"], it["flows"]) for it in figures]
    for mode, cases in (("l2", CASES), ("l3", CASES), ("l4", CASES_OF_L4)):
        for version, protocol in ((4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp")):
            there = {(case, flows) for m, v, p, case, flows in rows if (m, v, p) == (mode, version, protocol)}
            assert {case for case, _ in there} >= cases
            assert {flows for case, flows in there if case == "established"} == {1, 10_000, 1 << 17, 1 << 20}
    assert {mode for mode, _, _, case, _ in rows if case == "through veth"} == {"l2", "l3", "l4"}


@pytest.mark.usefixtures("bpf", "one_cpu")
def test_packets_come_through_wires() -> None:
    figures = through_wires(2, 20_000, max(os.sched_getaffinity(0)))
    assert [mode for mode, *_ in figures] == ["l2", "l3", "l4"]
    assert all(forwarder > 0 and floor > 0 for _, forwarder, floor, _ in figures)


@pytest.mark.usefixtures("bpf")
def test_a_node_table_is_read_from_outside() -> None:
    """As bench/kernel.py does, by what bpf/abi.h says a node is."""
    rig = Rig("l2")
    table = NodeTable(os.getpid())
    assert [table.address(number) for number in (1, NODES)] == [node_addresses(number)[0] for number in (1, NODES)]
    assert table.address(NODES + 1) == "0.0.0.0"
    assert table.number(node_addresses(7)[0]) == 7
    table.close()
    del rig  # and its maps


@pytest.mark.usefixtures("bpf")
def test_a_slot_table_is_changed_in_ten_milliseconds() -> None:
    """Of a thousand nodes. Twice that here, beside other tests."""
    median_ns, _ = change_slots_ns(2)
    assert median_ns < 20e6
