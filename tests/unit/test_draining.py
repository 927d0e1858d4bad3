"""What draining nodes still have: one count answers all who ask, and tells only of those that get no new flows."""

import asyncio
from dataclasses import replace

import pytest

from gale.core.commands import Drain
from gale.core.state import ClusterState
from gale.draining import REST_MS, Draining
from gale.errors import DataplaneError
from gale.memory import MemoryFlows, SetClock
from gale.ports import Flow, FlowChoice, FlowCounts
from tests.unit.test_apply import DB, WEB, node, routing, told


class Table(MemoryFlows):
    """A count takes until it is let go. `asked`: what was counted."""

    def __init__(self, state: ClusterState) -> None:
        super().__init__()
        self.all = [
            Flow(
                "198.51.100.7",
                40_000 + n,
                "tcp",
                "default",
                "192.0.2.1",
                8080,
                node(state, info).number,
                1,
                "established",
                0,
            )
            for n, info in enumerate((WEB, DB, DB))
        ]
        self.asked: list[FlowChoice] = []
        self.trouble = ""
        self.go = asyncio.Event()

    async def count(self, choice: FlowChoice) -> FlowCounts:
        self.asked.append(choice)
        await self.go.wait()
        if self.trouble:
            raise DataplaneError(self.trouble)
        return await super().count(choice)


async def counted() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_count_answers_all_who_ask_and_the_next_one_rests_first() -> None:
    state = told(routing(WEB, DB), Drain(0, "web", True), Drain(0, "db", True))
    table, clock = Table(state), SetClock()
    draining = Draining(lambda: table, clock)
    for _ in range(3):
        assert [draining.left(state, name, state.generation) for name in ("web", "db")] == [None, None]
        await counted()
    clock.now_ms += 500
    table.go.set()
    await counted()
    assert [draining.left(state, name, state.generation) for name in ("web", "db")] == [1, 2]
    assert table.asked == [FlowChoice()]
    clock.now_ms += 499
    draining.left(state, "web", state.generation)
    await counted()
    assert len(table.asked) == 1
    clock.now_ms += 1
    draining.left(state, "web", state.generation)
    await counted()
    assert len(table.asked) == 2


async def test_a_count_tells_nothing_of_what_drains_since_nor_of_what_is_not_known_yet() -> None:
    state = told(routing(WEB, DB), Drain(1, "web", True))
    table, clock = Table(state), SetClock()
    table.go.set()
    draining = Draining(lambda: table, clock)
    assert draining.left(state, "db", state.generation) is None  # it routes
    assert draining.left(state, "web", state.generation - 1) is None  # the kernel may give it new ones
    assert table.asked == []
    draining.left(state, "web", state.generation)
    await counted()
    assert draining.left(state, "web", state.generation) == 1
    again = told(state, Drain(5_000, "web", False), Drain(9_000, "web", True), Drain(9_000, "db", True))
    assert [draining.left(again, name, again.generation) for name in ("web", "db")] == [None, None]
    clock.now_ms += REST_MS
    table.unsettled = {node(again, DB).number}
    draining.left(again, "web", again.generation)
    await counted()
    assert [draining.left(again, name, again.generation) for name in ("web", "db")] == [1, None]
    assert draining.left(again, "nobody", again.generation) == 0


async def test_what_was_counted_holds_for_this_draining_only() -> None:
    """Two may have begun at the same time: the cluster's clock stands while real time catches up."""
    state = told(routing(WEB, DB), Drain(1, "web", True))
    table, clock = Table(state), SetClock()
    table.go.set()
    draining = Draining(lambda: table, clock)
    draining.left(state, "web", state.generation)
    await counted()
    draining.heed(state)
    assert draining.left(state, "web", state.generation) == 1
    draining.heed(told(state, Drain(1, "web", False)))
    again = told(state, Drain(1, "web", False), Drain(1, "web", True))
    draining.heed(again)
    assert node(again, WEB).since_ms == node(state, WEB).since_ms
    assert draining.left(again, "web", again.generation) is None


@pytest.mark.parametrize("method", ["settled", "count"])
async def test_whatever_fails_of_a_count_is_told(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    state = told(routing(WEB, DB), Drain(0, "web", True))
    table = Table(state)

    def refuse(_: object) -> bool:
        raise DataplaneError("the kernel does not tell its time")

    monkeypatch.setattr(table, method, refuse)
    draining = Draining(lambda: table, SetClock())
    assert draining.left(state, "web", state.generation) is None
    await counted()
    with pytest.raises(DataplaneError, match="does not tell its time"):
        draining.left(state, "web", state.generation)


async def test_flows_that_cannot_be_counted_are_an_error_until_they_can() -> None:
    state = told(routing(WEB, DB), Drain(0, "web", True))
    table, clock = Table(state), SetClock()
    table.go.set()
    table.all = [replace(flow, state="ended") for flow in table.all]
    table.trouble = "the table is gone"
    draining = Draining(lambda: table, clock)
    draining.left(state, "web", state.generation)
    await counted()
    clock.now_ms += REST_MS
    table.trouble = ""
    with pytest.raises(DataplaneError, match="the table is gone"):
        draining.left(state, "web", state.generation)
    await counted()
    assert draining.left(state, "web", state.generation) == 0
