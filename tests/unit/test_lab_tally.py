"""Counting requests."""

import json

import pytest

from gale.lab.incidents import Window, kinds, shares, unannounced
from gale.lab.tally import FAILURES_LISTED_MAX, Failure, Sample, Tally, bucket, sum_of, upper_bound_s


def tally(*latencies_ms: float, failures: int = 0) -> Tally:
    made = Tally()
    for number, latency_ms in enumerate(latencies_ms):
        made.answered(f"node-{number % 2}", latency_ms / 1000)
    for number in range(failures):
        made.fail(Failure(number, "refused"))
    return made


@pytest.mark.parametrize("latency_s", [0.0, 1e-6, 0.0004, 0.001, 0.01, 1.0, 2.0])
def test_a_bucket_ends_at_most_five_percent_above_what_it_holds(latency_s: float) -> None:
    assert latency_s <= upper_bound_s(bucket(latency_s)) <= max(latency_s * 1.05, 1.0001e-6)


def test_percentiles() -> None:
    counted = tally(*[1.0] * 98, 50.0, 100.0)
    assert counted.percentile_ms(50) == pytest.approx(1, rel=0.05)
    assert counted.percentile_ms(99) == pytest.approx(50, rel=0.05)
    assert counted.percentile_ms(100) == pytest.approx(100, rel=0.05)
    assert Tally().percentile_ms(50) is None


def test_the_sum_of_intervals_is_the_whole() -> None:
    parts = [tally(1, 2, 3), tally(4, failures=2), tally()]
    whole = sum_of(parts)
    assert (whole.ok, whole.failed) == (4, 2)
    assert whole.nodes == {"node-0": 3, "node-1": 1}
    assert len(whole.listed) == 2
    assert parts[0].ok == 3


def test_the_list_of_failures_is_bounded_and_their_count_is_not() -> None:
    many = tally(failures=2 * FAILURES_LISTED_MAX)
    many.add(tally(failures=1))
    assert len(many.listed) == FAILURES_LISTED_MAX
    assert many.failed == 2 * FAILURES_LISTED_MAX + 1


def test_a_sample_survives_json() -> None:
    sample = Sample(12.5, 0.2, {"10.77.1.10:8080": tally(1, 2, failures=3)}, final=True)
    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample


def test_only_failures_outside_of_every_window_are_unannounced() -> None:
    windows = [Window(10, 12), Window(20, 21)]
    assert surprises([30.0, 9.9, 10.0, 12.0, 20.5], windows) == [9.9, 30.0]
    assert surprises([], windows) == []


def surprises(failures_at_s: list[float], windows: list[Window]) -> list[float]:
    """When the requests began that failed unannounced, of requests that failed."""
    failed = Tally(listed=[Failure(at_s, "refused") for at_s in failures_at_s])
    return [failure.started_s for failure in unannounced([Sample(31, 1, {"here": failed})], windows)]


def test_words() -> None:
    assert shares({"node-1": 1, "node-0": 3}) == "node-0 75 %, node-1 25 %"
    assert kinds({"reset": 1, "refused": 7}) == "7 refused, 1 reset"
    assert kinds({}) == "none"
