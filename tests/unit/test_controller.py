"""The loop of one load balancer over adapters in memory: from a check to the maps, and what happens when parts fail."""

import asyncio
from dataclasses import replace

import pytest

from gale.controller import WRITES_MAX, Controller
from gale.core.commands import Announce, Drain, Goodbye, Passed, Report
from gale.core.outcome import Applied, Rejected
from gale.core.plan import SetSlots, Write
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import NodeInfo, Phase
from gale.errors import ConsensusError, DataplaneError
from gale.memory import MemoryConsensus, MemoryDataplane, SetClock

ME = "10.0.0.1:9090"
SHARED = SharedConfig(HealthPolicy(3, 3_000, 1, 10_000), (Service("default", 8080, 80),))
WEB, DB = NodeInfo("web", "10.1.0.1"), NodeInfo("db", "10.1.0.2")


class Box:
    """A load balancer in memory. `steps` takes as many steps of the loop as needed, 50 ms each."""

    def __init__(self) -> None:
        self.consensus, self.dataplane, self.clock = MemoryConsensus(ME), MemoryDataplane(), SetClock()
        announce = Announce(0, ME, "10.0.0.1:5555", "0.1.0", SHARED, enforces=False, leads=False)
        self.controller = Controller(announce, self.consensus, self.dataplane, self.clock)

    async def steps(self, count: int = 4, check: tuple[NodeInfo, ...] = ()) -> None:
        for _ in range(count):
            for info in check:
                self.controller.check(info, serving=True)
            self.controller.step()
            await asyncio.sleep(0)  # lets the proposal end
            await asyncio.sleep(0)
            self.clock.now_ms += 50

    def phase(self, name: str = "web") -> Phase:
        return self.consensus.state.nodes[name].phase

    def addresses(self) -> set[str]:
        """Of the nodes in the maps."""
        return {node.address for node in self.dataplane.view.nodes.values()}

    def level(self) -> bool:
        """The maps hold what was committed."""
        held, committed = self.dataplane.view, self.consensus.state.view()
        return (held.nodes, held.slots) == (committed.nodes, committed.slots)

    async def routing(self, *infos: NodeInfo) -> "Box":
        await self.steps(2)
        await self.steps(8, infos)
        assert all(self.consensus.state.nodes[info.id].phase is Phase.ROUTING for info in infos)
        return self


async def test_checks_become_map_entries_and_programs_are_attached() -> None:
    box = await Box().routing(WEB)
    assert box.level()
    assert box.dataplane.view.owners("default") == {1}
    assert box.dataplane.attachments
    assert box.controller.local_status().generation == box.consensus.state.generation


async def test_a_quiet_cluster_has_a_silent_log() -> None:
    box = await Box().routing(WEB, DB)
    commands = len(box.consensus.log)
    await box.steps(40, (WEB, DB))
    assert len(box.consensus.log) == commands


async def test_a_silent_node_leaves_the_maps_and_the_others_stay() -> None:
    box = await Box().routing(WEB, DB)
    await box.steps(70, (DB,))
    assert box.phase() is Phase.BANNED
    assert box.addresses() == {DB.address}
    await box.steps(220, (WEB, DB))
    assert box.phase() is Phase.ROUTING


async def test_a_write_the_kernel_refuses_is_tried_again_and_nothing_unsafe_is_left() -> None:
    box = await Box().routing(WEB)
    refusals = 3

    def refuse(write: Write) -> bool:
        nonlocal refusals
        refusals -= isinstance(write, SetSlots)
        return isinstance(write, SetSlots) and refusals >= 0

    box.dataplane.refuse = refuse
    await box.steps(12, (WEB, DB))
    assert refusals < 0
    assert box.level()
    assert len(box.dataplane.view.owners("default")) == 2


async def test_without_a_quorum_nothing_is_proposed_and_what_dies_leaves_the_maps_of_this_one() -> None:
    box = await Box().routing(WEB, DB)
    box.consensus.quorum = False
    before, commands = box.dataplane.view, len(box.consensus.log)
    await box.steps(70, (DB,))
    assert box.addresses() == {DB.address}
    assert (box.phase(), len(box.consensus.log)) == (Phase.ROUTING, commands)
    assert box.controller.local_status().degraded == ("web",)
    await box.steps(70, (WEB, DB))
    assert (box.dataplane.view, box.controller.local_status().degraded) == (before, ())


async def test_when_the_quorum_is_back_the_log_decides_again() -> None:
    box = await Box().routing(WEB, DB)
    box.consensus.quorum = False
    await box.steps(70, (DB,))
    box.consensus.quorum = True
    await box.steps(4, (DB,))
    assert box.phase() is Phase.BANNED
    assert box.controller.local_status().degraded == ()
    assert box.level()


async def test_after_an_own_cable_was_broken_nodes_have_the_whole_timeout_to_be_heard_again() -> None:
    box = await Box().routing(WEB, DB)
    box.consensus.quorum = False
    await box.steps(100)
    box.consensus.quorum = True
    await box.steps(10)
    await box.steps(40, (DB,))
    assert box.phase() is Phase.ROUTING
    await box.steps(15, (DB,))
    assert box.phase() is Phase.BANNED


async def test_an_election_takes_nothing_away() -> None:
    box = await Box().routing(WEB, DB)
    await box.steps(50, (DB,))
    box.consensus.quorum = False
    await box.steps(19, (DB,))
    assert box.controller.local_status().degraded == ()


async def test_without_a_quorum_bans_and_drains_are_frozen() -> None:
    box = await Box().routing(WEB, DB)
    await box.steps(70, (DB,))
    assert box.phase() is Phase.BANNED
    box.consensus.quorum = False
    await box.steps(500, (WEB, DB))  # longer than the ban
    assert box.phase() is Phase.BANNED
    assert box.addresses() == {DB.address}
    for order in (box.controller.order(Drain(0, "db", True)), box.controller.barrier()):
        with pytest.raises(ConsensusError):
            await order
    box.consensus.quorum = True
    await box.steps(12, (WEB, DB))
    assert box.phase() is Phase.ROUTING


async def test_an_operator_drains_and_undrains() -> None:
    box = await Box().routing(WEB, DB)
    assert isinstance(await box.controller.order(Drain(0, "web", True)), Applied)
    await box.steps(2, (WEB, DB))
    assert (box.phase(), len(box.dataplane.view.nodes)) == (Phase.DRAINING, 2)
    assert len(box.dataplane.view.owners("default")) == 1
    assert isinstance(await box.controller.order(Drain(0, "web", False)), Applied)
    assert box.phase() is Phase.ROUTING
    assert await box.controller.order(Drain(0, "wbe", True)) == Rejected("no node is called wbe")


async def test_many_writes_are_spread_over_steps_and_each_leaves_the_maps_whole() -> None:
    box = Box()
    infos = [NodeInfo(f"n{i}", f"10.{i // 65536}.{i // 256 % 256}.{i % 256}") for i in range(2 * WRITES_MAX + 5)]
    await box.consensus.propose(Announce(0, ME, "10.0.0.1:5555", "0.1.0", SHARED, False, True))
    await box.consensus.propose(Report(0, ME, tuple(Passed(info, 3) for info in infos)))
    written = []
    while not box.level():
        box.controller.step()
        written.append(len(box.dataplane.writes))
        assert not box.dataplane.attachments or box.level()
    assert written == [WRITES_MAX, 2 * WRITES_MAX, 2 * WRITES_MAX + 6]
    assert box.dataplane.attachments


async def test_before_the_log_is_level_the_maps_are_not_touched() -> None:
    box = Box()
    box.consensus.ready = False
    await box.steps(10, (WEB,))
    assert not box.dataplane.attachments
    assert not box.dataplane.writes
    assert not box.consensus.log


async def test_a_refused_node_is_told_why_and_stays_out_of_the_log() -> None:
    box = await Box().routing(WEB)
    commands = len(box.consensus.log)
    impostor = NodeInfo("web", "10.1.0.9")
    await box.steps(4, (impostor,))
    assert "name is taken" in box.controller.check(impostor, serving=True).refusal
    assert len(box.consensus.log) == commands


async def test_an_impostor_neither_keeps_a_dead_node_nor_removes_a_live_one() -> None:
    box = await Box().routing(WEB)
    twin = NodeInfo("web", "10.1.0.9")
    box.controller.check(twin, serving=False)
    await box.steps(4, (WEB,))
    assert box.phase() is Phase.ROUTING
    await box.steps(70, (twin,))
    assert box.phase() is Phase.BANNED
    assert box.controller.check(WEB, serving=True).phase == "banned"


async def test_a_service_that_only_the_leader_has_does_not_keep_the_others_from_the_maps() -> None:
    box = await Box().routing(WEB)
    box.consensus.leader = "10.0.0.2:9090"
    more = replace(SHARED, services=(*SHARED.services, Service("mail", 25, 25)))
    await box.consensus.propose(Announce(0, "10.0.0.2:9090", "10.0.0.2:5555", "0.1.0", more, False, True))
    await box.steps(20, (WEB, DB))
    assert "mail" in box.consensus.state.tables
    assert len(box.dataplane.view.owners("default")) == 2


async def test_goodbye_returns_when_it_is_committed() -> None:
    box = await Box().routing(WEB)
    loop = asyncio.create_task(box.controller.run())
    standing = await box.controller.goodbye(WEB)
    loop.cancel()
    assert standing.phase == "left"
    await box.steps(1)
    assert not box.dataplane.view.owners("default")


async def test_a_strangers_goodbye_removes_nobody() -> None:
    box = await Box().routing(WEB)
    assert (await box.controller.goodbye(NodeInfo("web", "10.1.0.9"))).phase == "unknown"
    await box.steps(4, (WEB,))
    said = [o for p in box.consensus.log if isinstance(p.command, Report) for o in p.command.observations]
    assert not [observation for observation in said if isinstance(observation, Goodbye)]
    assert box.consensus.state.nodes["web"].phase is Phase.ROUTING


async def test_a_removed_nodes_flows_are_ended_after_the_maps_know_and_a_draining_ones_are_not() -> None:
    box = await Box().routing(WEB, DB)
    number = box.consensus.state.nodes["web"].number
    await box.controller.order(Drain(0, "web", True))
    await box.steps(4, (WEB, DB))
    assert (box.phase(), box.dataplane.farewells) == (Phase.DRAINING, [])
    assert number in box.dataplane.view.nodes
    loop = asyncio.create_task(box.controller.run())
    await box.controller.goodbye(WEB)
    loop.cancel()
    await box.steps(2, (DB,))
    assert (box.phase(), box.dataplane.farewells) == (Phase.LEFT, [number])
    assert number not in box.dataplane.view.nodes
    await box.steps(20, (DB,))
    assert box.dataplane.farewells == [number]


async def test_a_number_that_goes_to_another_address_at_once_is_given_a_farewell_too() -> None:
    box = await Box().routing(WEB)
    moved = replace(WEB, address="10.1.0.9")
    await box.consensus.propose(Report(0, ME, (Goodbye("web"), Passed(moved, 3))))
    await box.steps(1, (moved,))
    assert box.addresses() == {"10.1.0.9"}
    assert box.dataplane.farewells == [1]
    await box.consensus.propose(Report(0, ME, (Passed(replace(moved, address6="fd00::9"), 3),)))
    await box.steps(1, (moved,))
    assert box.dataplane.view.nodes == {1: ("10.1.0.9", "fd00::9")}
    assert box.dataplane.farewells == [1]


async def test_a_farewell_that_fails_is_said_again() -> None:
    box = await Box().routing(WEB, DB)
    failures = [DataplaneError("no socket"), DataplaneError("no socket")]
    farewells = list[int]()

    def farewell(number: int) -> None:
        if failures:
            raise failures.pop()
        farewells.append(number)

    box.dataplane.farewell = farewell  # type: ignore[method-assign]
    await box.steps(70, (DB,))
    assert (box.phase(), farewells, failures) == (Phase.BANNED, [1], [])


async def test_what_the_kernel_holds_is_verified_at_the_start_and_every_minute_with_a_warning_for_each_difference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    box = Box()
    box.dataplane.differences = ("node 1: gone", "slots of default: 3 differ")
    await box.steps(2, (WEB,))
    assert not box.dataplane.differences
    box.dataplane.differences = ("node 1: gone",)
    await box.steps(60_000 // 50 - 4, (WEB,))
    assert box.dataplane.differences
    await box.steps(5, (WEB,))
    assert not box.dataplane.differences
    told = [line for line in capsys.readouterr().out.splitlines() if "mended" in line]
    assert [line.partition("difference=")[2].strip("'") for line in told] == [
        "node 1: gone",
        "slots of default: 3 differ",
        "node 1: gone",
    ]


async def test_a_verification_that_fails_is_said_once_and_keeps_nothing_else_waiting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    box = Box()
    failing = [True]

    def verify() -> tuple[str, ...]:
        if failing:
            raise DataplaneError("map nodes: not there")
        return ()

    box.dataplane.verify = verify  # type: ignore[method-assign]
    await box.routing(WEB)
    assert box.level()
    await box.steps(1_300, (WEB,))
    failing.clear()
    await box.steps(1_300, (WEB,))
    told = [line for line in capsys.readouterr().out.splitlines() if "verification:" in line]
    assert len(told) == 2
    assert "map nodes: not there" in told[0]
    assert "well again" in told[1]


async def test_why_a_node_does_not_serve_is_kept_while_it_does_not() -> None:
    box = await Box().routing(WEB, DB)
    box.controller.check(WEB, serving=False, reason="port 80: refused")
    box.controller.check(NodeInfo("stranger", "10.1.0.9"), serving=False, reason="never seen")
    box.controller.check(replace(DB, address="10.1.0.9"), serving=False, reason="an impostor's")
    assert box.controller.local_status().not_serving == {"web": "port 80: refused"}
    await box.steps(2, (DB,))
    assert box.phase() is Phase.BANNED
    box.controller.check(WEB, serving=True)
    assert box.controller.local_status().not_serving == {}


async def test_without_a_quorum_the_cause_of_an_absence_holds_the_nodes_own_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    box = await Box().routing(WEB, DB)
    box.consensus.quorum = False
    await box.steps(25, (WEB, DB))
    box.controller.check(WEB, serving=False, reason="port 80: refused")
    await box.steps(2, (DB,))
    assert box.controller.local_status().degraded == ("web",)
    assert "cause='says that it is not serving: port 80: refused'" in capsys.readouterr().out


async def test_while_an_earlier_start_forwards_the_programs_wait_for_nodes_to_prepare() -> None:
    box = await Box().routing(WEB)
    again = Box()
    again.consensus = box.consensus
    again.dataplane.awaited = {WEB.address}
    again.controller = Controller(box.controller._me, again.consensus, again.dataplane, again.clock)
    await again.steps(10)
    assert again.level()
    assert not again.dataplane.attachments
    assert again.controller.flows_left("nobody") is None, "its kernel forwards by what an earlier start knew"
    await again.steps(2, (WEB,))
    assert again.dataplane.attachments
    assert again.controller.flows_left("nobody") == 0


async def test_they_do_not_wait_for_ever() -> None:
    box = await Box().routing(WEB)
    box.dataplane.awaited = {DB.address}
    box.controller = Controller(box.controller._me, box.consensus, box.dataplane, box.clock)
    box.dataplane.attachments = {}
    await box.steps(SHARED.health.checks_timeout_ms // 50, (WEB,))
    assert not box.dataplane.attachments
    await box.steps(2, (WEB,))
    assert box.dataplane.attachments
