"""What is due next, as a table of situations."""

from dataclasses import replace

from gale.core.agenda import next_duty
from gale.core.commands import Announce, Command, LiftBans, Missed, Passed, Report, SetAlive
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import ClusterState, NodeInfo
from tests.unit.strategies import put

A, B = "10.0.0.1:9090", "10.0.0.2:9090"
SHARED = SharedConfig(HealthPolicy(1, 3_000, 1, 10_000), (Service("default", 8080, 80),))
ME = Announce(0, A, "10.0.0.1:5555", "0.1.0", SHARED, enforces=False, leads=False)
PEER = replace(ME, load_balancer=B)


def told(*commands: Command) -> ClusterState:
    state = ClusterState()
    for command in commands:
        state, _ = put(state, command)
    return state


def duty(state: ClusterState, *, leads: bool, connected: frozenset[str] = frozenset({A, B})) -> Command | None:
    return next_duty(state, ME, leads=leads, connected=connected, time_ms=50_000)


def test_who_is_new_or_changed_announces_itself() -> None:
    announcement = replace(ME, time_ms=50_000)
    assert duty(told(), leads=False) == announcement
    assert duty(told(replace(ME, version="0.0.9")), leads=False) == announcement
    assert duty(told(ME), leads=False) is None


def test_a_new_leader_makes_its_configuration_the_reference() -> None:
    assert duty(told(ME), leads=True) == replace(ME, time_ms=50_000, leads=True)
    assert duty(told(replace(ME, leads=True)), leads=True, connected=frozenset({A})) is None


def test_the_leader_says_who_lives() -> None:
    state = told(replace(ME, leads=True), PEER)
    lost = duty(state, leads=True, connected=frozenset({A}))
    assert lost == SetAlive(50_000, B, False)
    state, _ = put(state, lost)
    assert duty(state, leads=True, connected=frozenset({A})) is None
    assert duty(state, leads=True) == SetAlive(50_000, B, True)
    assert duty(state, leads=False) is None


def test_the_leader_lifts_bans_that_have_ended_and_no_others() -> None:
    web = NodeInfo("web", "10.1.0.1")
    for banned_at_ms, due in ((40_000, LiftBans(50_000)), (40_001, None)):
        state = told(
            replace(ME, leads=True), Report(0, A, (Passed(web, 1),)), Report(banned_at_ms, A, (Missed("web"),))
        )
        assert duty(state, leads=True, connected=frozenset({A})) == due
