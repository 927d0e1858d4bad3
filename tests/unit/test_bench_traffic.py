"""The arithmetic of bench/traffic.py and bench/change.py: what programs say, what a core worked, medians and aims."""

import json

import pytest

from bench import asking, change, frames, talking, traffic
from bench.acts import acts
from bench.asking import Moment
from bench.records import Records, rounded, spread
from gale.errors import HostError
from gale.lab.flows import Broken
from gale.lab.tally import Failure, Tally

STAT = """\
cpu  200 20 300 4000 50 6 70 8 0 0
cpu0 100 10 100 2000 25 3 35 4 0 0
cpu1 100 10 200 2000 25 3 35 4 0 0
intr 1
"""


def test_a_core_is_away_while_idle_waiting_nice_or_stolen() -> None:
    assert asking.away_s(STAT, 1) == (10 + 2000 + 25 + 4) / asking.TICKS_PER_S


def test_a_core_that_is_not_there_is_an_error_that_says_so() -> None:
    with pytest.raises(HostError, match="no cpu7"):
        asking.away_s(STAT, 7)


def test_what_a_core_was_not_away_it_was_busy() -> None:
    assert Moment(12.0, 7.5).busy_s(Moment(10.0, 7.0)) == pytest.approx(1.5)
    assert Moment(12.0, 9.1).busy_s(Moment(10.0, 7.0)) == 0.0  # ticks are coarser than the clock


def test_the_last_line_of_wrk_is_what_its_script_says() -> None:
    words = '{"requests": 200, "seconds": 2.0, "errors": 0, "p50_us": 500, "p99_us": 1500, "p999_us": 2500}'
    assert asking.request_figures(asking.last_words(f"Running 2s test\n{words}\n"), busy_s=0.5) == {
        "requests": ("/s", 100.0),
        "p50": ("ms", 0.5),
        "p99": ("ms", 1.5),
        "p99.9": ("ms", 2.5),
        "forwarder's CPU": ("µs per request", 2500.0),
    }


@pytest.mark.parametrize("said", ["", "unable to connect to 10.0.0.1:80 Connection refused\n"])
def test_what_wrk_says_else_is_an_error(said: str) -> None:
    with pytest.raises(HostError, match="wrk: "):
        asking.last_words(said)


def test_requests_that_failed_give_no_figure() -> None:
    with pytest.raises(HostError, match="3 of 200 requests failed"):
        asking.request_figures({"requests": 200, "errors": 3}, busy_s=0.5)


def test_what_arrived_counts_of_iperf3() -> None:
    sums = {"sum_sent": {"bits_per_second": 9e9, "bytes": 9e9}, "sum_received": {"bits_per_second": 4e9, "bytes": 2e9}}
    figures = asking.bulk_figures(json.loads(json.dumps({"end": sums})), busy_s=0.5)
    assert figures == {"throughput": ("Gbit/s", 4.0), "forwarder's CPU": ("ms per GB", 250.0)}


def test_an_error_of_iperf3_is_ours() -> None:
    with pytest.raises(HostError, match="the server is busy"):
        asking.bulk_figures({"error": "the server is busy"}, busy_s=0.5)


def test_every_case_has_a_name_of_its_own() -> None:
    assert list(traffic.cases()) == [
        "requests, kept",
        "requests, one per request",
        "bulk to the node, 1 stream",
        "bulk to the node, 10 streams",
        "bulk from the node, 1 stream",
        "bulk from the node, 10 streams",
        "requests, as many as the forwarder can",
    ]


def test_a_spread_is_the_median_the_least_and_the_most() -> None:
    assert spread([3.0, 1.0, 2.0, 10.0]) == {"median": 2.5, "low": 1.0, "high": 10.0, "runs": 4}
    assert rounded(123_456.0) == 123_500.0
    assert rounded(0.000123456) == 0.0001235


def records(**rates: list[float]) -> Records:
    made = Records()
    for contestant, values in rates.items():
        for value in values:
            made.add("requests, kept", contestant.replace("_", " "), {"requests": ("/s", value)})
    return made


def test_records_keep_their_order_and_their_rounds() -> None:
    found = records(none=[4.0, 8.0], gale_l4=[3.0, 7.0]).all()
    assert [(it["contestant"], it["median"], it["runs"]) for it in found] == [("none", 6.0, 2), ("gale l4", 5.0, 2)]


@pytest.mark.parametrize(("gale", "held"), [([9.5, 19.0], True), ([8.0, 19.0], True), ([8.0, 16.0], False)])
def test_ratios_are_taken_round_by_round(gale: list[float], held: bool) -> None:
    judged = traffic.Aim("requests, kept", "requests", "gale l4", "none", 0.87).judged(
        records(none=[10, 20], gale_l4=gale)
    )
    assert judged is not None
    assert judged["held"] is held
    assert judged["low"] == min(gale[0] / 10, gale[1] / 20)


def test_some_aims_are_bounds_from_above() -> None:
    aim = traffic.Aim("requests, kept", "requests", "gale l4", "HAProxy", 0.25, least=False)
    for gale, held in ((2.0, True), (3.0, False)):
        judged = aim.judged(records(HAProxy=[10.0], gale_l4=[gale]))
        assert judged is not None
        assert (judged["held"], judged["at most"]) == (held, 0.25)


def test_what_was_not_measured_is_not_judged() -> None:
    assert traffic.Aim("requests, kept", "requests", "gale l4", "none", 0.9).judged(records(gale_l4=[1.0])) is None


def test_aims_are_about_cases_that_there_are() -> None:
    assert {aim.case for aim in traffic.aims()} == {traffic.FRAMES_CASE, *traffic.cases()}
    assert {aim.case for aim in change.aims()} == {act.name for act in acts()}


def test_connections_of_a_dead_node_are_counted_apart() -> None:
    tally = Tally()
    for _ in range(99):
        tally.answered("node-0", 0.001)
    tally.answered("node-0", 0.5)
    tally.fail(Failure(100.25, "refused"))
    broken = [Broken(100.1, "node-2", "reset"), Broken(100.2, "node-1", "closed")]
    found = {name: value for name, (_, value) in change.figures([Tally(), tally], broken, 100.0, "node-2").items()}
    assert found["failed requests"] == 1
    assert found["last failed request"] == pytest.approx(0.25)
    assert found["p99"] < 1.1
    assert found["slowest"] > 490
    assert (found["broken connections"], found["broken connections of living nodes"]) == (2, 1)
    alive = change.figures([Tally(), tally], broken, 100.0, "")
    assert alive["broken connections of living nodes"] == ("", 2.0)


def test_the_checksum_of_a_header_with_it_is_zero() -> None:
    header = bytes.fromhex("450000320001000040110000644000010a000001")
    whole = header[:10] + frames.checksum(header).to_bytes(2, "big") + header[12:]
    assert frames.checksum(whole) == 0


def test_a_syn_has_the_checksum_that_a_receiver_expects() -> None:
    header = talking.syn("10.77.1.200", 20_000, "10.77.1.10", 8080)
    pseudo = bytes([10, 77, 1, 200, 10, 77, 1, 10, 0, 6, 0, len(header)])
    assert frames.checksum(pseudo + header) == 0
    assert header[13] == talking.SYN
