"""How much one address may ask for: pure arithmetic on given times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gale.rpc import limits
from gale.rpc.limits import Limits, Pace, Sources

LIMITS = Limits(calls_per_s=10, burst=5, open_per_source=3, open_in_all=4, connections=100)


def test_a_burst_goes_through_and_then_one_every_interval() -> None:
    pace = Pace(10, 3)
    delays = [pace.delay_s(100.0) for _ in range(5)]
    assert delays == pytest.approx([0, 0, 0, 0.1, 0.2])
    assert not pace.rested(100.4)
    assert pace.rested(100.6)


@given(st.lists(st.floats(0, 0.5), max_size=200), st.integers(1, 20), st.sampled_from([0.5, 10.0, 200.0]))
def test_however_they_come_no_second_has_more_than_burst_and_rate(gaps: list[float], burst: int, per_s: float) -> None:
    pace, now_s, taken = Pace(per_s, burst), 0.0, []
    for gap in gaps:
        now_s += gap
        now_s += pace.delay_s(now_s)  # who is slowed down asks again only afterwards
        taken.append(now_s)
    for begin in taken:
        assert sum(begin <= at < begin + 1.0 for at in taken) <= burst + per_s + 1


def test_a_node_is_never_slowed_down_at_the_least_timeout() -> None:
    pace, now_s = Pace(limits.CHECKS_PER_S, limits.CHECKS_BURST), 0.0
    for i in range(300):  # a check every third of a second, and its service goes up and down with each
        now_s = i / 3
        assert pace.delay_s(now_s) == pace.delay_s(now_s) == 0


def test_one_address_cannot_take_the_room_of_another() -> None:
    sources = Sources(LIMITS)
    for _ in range(3):
        assert sources.enter("10.0.0.1", 0.0) == 0
    with pytest.raises(ValueError, match=r"3 calls of 10\.0\.0\.1 are under way"):
        sources.enter("10.0.0.1", 0.0)
    assert sources.enter("10.0.0.2", 0.0) == 0
    with pytest.raises(ValueError, match="4 calls are under way"):
        sources.enter("10.0.0.3", 0.0)
    sources.leave("10.0.0.1")
    assert sources.enter("10.0.0.3", 0.0) == 0


def test_who_calls_too_fast_waits_and_nobody_else() -> None:
    sources = Sources(LIMITS)
    for _ in range(5):
        assert sources.enter("10.0.0.1", 0.0) == 0
        sources.leave("10.0.0.1")
    assert sources.enter("10.0.0.1", 0.0) == pytest.approx(0.1)
    assert sources.enter("10.0.0.2", 0.0) == 0


def test_what_is_kept_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SOURCES_KEPT", 10)
    sources = Sources(LIMITS)
    sources.enter("10.1.0.0", 0.0)
    for i in range(1_000):
        sources.enter(f"10.0.{i // 250}.{i % 250}", float(i))
        sources.leave(f"10.0.{i // 250}.{i % 250}")
    assert len(sources._sources) <= 11
    assert sources._sources["10.1.0.0"].open == 1
