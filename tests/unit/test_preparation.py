"""When a node looks at its machine, and what it says meanwhile; the machine is a list of what was asked of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import pytest

from gale.errors import HostError
from gale.prepare import preparation
from gale.prepare.needs import Offer, Told
from gale.prepare.plan import Change
from gale.prepare.preparation import Outcome, Preparation, Preparer

L2 = Told((Offer("web", ("203.0.113.80",), "l2"),), ("10.0.0.2",))
OTHER = Told((Offer("web", ("203.0.113.81",), "l2"),), ("10.0.0.3",))


class Machine(Preparer):
    """Changes nothing anywhere."""

    def __init__(self, trouble: str = "") -> None:
        self.asked: list[dict[str, Told]] = []
        self.trouble = trouble
        self.undone = 0

    @property
    def done(self) -> tuple[Change, ...]:
        return ()

    def bring_about(self, told: Mapping[str, Told]) -> Outcome:
        self.asked.append(dict(told))
        return Outcome(dict.fromkeys(told, self.trouble), "fd00::11")

    def undo(self) -> bool:
        self.undone += 1
        if self.trouble:
            raise HostError(self.trouble)
        return True


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "GATHER_S", 0.01)
    monkeypatch.setattr(preparation, "RETRY_S", 0.01)
    monkeypatch.setattr(preparation, "CHECK_S", 3600)


@asynccontextmanager
async def kept(machine: Machine) -> AsyncIterator[Preparation]:
    one = Preparation(machine)
    task = asyncio.create_task(one.keep())
    try:
        async with asyncio.timeout(5):
            yield one
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_nobody_is_told_that_it_serves_before_it_was_tried() -> None:
    machine = Machine()
    async with kept(machine) as one:
        assert one.reason("a") == "this node is being prepared"
        await one.hear("a", L2)
        assert one.reason("a") == ""
        assert one.reason("b") == "this node is being prepared"
        assert one.address6 == "fd00::11"


async def test_load_balancers_that_speak_together_are_prepared_for_once() -> None:
    machine = Machine()
    async with kept(machine) as one:
        await asyncio.gather(one.hear("a", L2), one.hear("b", OTHER))
        assert machine.asked == [{"a": L2, "b": OTHER}]


async def test_the_same_words_again_change_nothing_and_new_ones_do() -> None:
    machine = Machine()
    async with kept(machine) as one:
        for told in (L2, L2, OTHER):
            await one.hear("a", told)
        assert machine.asked == [{"a": L2}, {"a": OTHER}]


async def test_what_failed_is_tried_again_and_its_end_is_told() -> None:
    machine = Machine("no bcc")
    async with kept(machine) as one:
        await one.hear("a", L2)
        assert one.reason("a") == "no bcc"
        changed = one.changed
        machine.trouble = ""
        await changed.wait()
        assert one.reason("a") == ""
        assert len(machine.asked) > 1


async def test_what_holds_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "CHECK_S", 0.01)
    machine = Machine()
    async with kept(machine) as one:
        await one.hear("a", L2)
        machine.trouble = "somebody took it away"
        await one.changed.wait()
        assert one.reason("a") == "somebody took it away"


async def test_a_stop_puts_back_and_survives_what_it_cannot() -> None:
    for machine in (Machine(), Machine("another gale-node")):
        async with kept(machine) as one:
            await one.undo()
        assert machine.undone == 1
