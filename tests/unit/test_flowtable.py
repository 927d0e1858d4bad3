"""For how long a flow was quiet, by stamps that wrap."""

import pytest

from gale.dataplane import jiffies
from gale.dataplane.flowtable import quiet_for_s

NOW = 5


@pytest.mark.parametrize("ticks", [0, 1, 1 << 30, (1 << 31) + 1, 3 << 30])
def test_a_flow_is_quiet_since_it_was_seen(ticks: int) -> None:
    assert quiet_for_s((NOW - ticks) % (1 << 32), NOW) == ticks / jiffies.per_second()


def test_one_that_was_seen_since_the_clock_was_read_is_not() -> None:
    assert quiet_for_s(NOW + 3, NOW) == 0
