"""What a load balancer reports of what it saw: edges, not beats."""

from gale.core.commands import Announce, Goodbye, LiftBans, Missed, NotServing, Observation, Passed, Report
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import ClusterState, NodeInfo, Phase
from gale.core.watch import Watch
from tests.unit.strategies import put

ME = "10.0.0.1:9090"
WEB = NodeInfo("web", "10.1.0.1")
TIMEOUT_MS = 3_000
SHARED = SharedConfig(HealthPolicy(3, TIMEOUT_MS, 1, 10_000), (Service("default", 8080, 80),))


class World:
    """One load balancer whose reports are committed as soon as they are made."""

    def __init__(self) -> None:
        announce = Announce(0, ME, "10.0.0.1:5555", "0.1.0", SHARED, enforces=False, leads=True)
        self.state, _ = put(ClusterState(), announce)
        self.watch = Watch(ME)
        self.now_ms = 0

    def elapse(self, ms: int) -> None:
        for _ in range(ms // 50):
            self.now_ms += 50
            self.watch.tick(self.state, self.now_ms)

    def check(self, serving: bool = True) -> None:
        self.watch.check(WEB, serving, self.now_ms)

    def report(self) -> tuple[Observation, ...]:
        due = self.watch.due(self.state, self.now_ms)
        self.state, _ = put(self.state, Report(self.now_ms, ME, due))
        return due

    def routing(self) -> "World":
        for _ in range(3):
            self.check()
            self.report()
        assert self.state.nodes["web"].phase is Phase.ROUTING
        return self


def test_each_check_counts_until_three_and_then_nothing_is_said() -> None:
    world = World()
    said = []
    for _ in range(6):
        world.check()
        said.append(world.report())
        world.elapse(1_000)
    assert said == [(Passed(WEB, 1),), (Passed(WEB, 2),), (Passed(WEB, 3),), (), (), ()]


def test_silence_for_the_timeout_is_reported_once() -> None:
    world = World().routing()
    world.elapse(TIMEOUT_MS - 50)
    assert world.report() == ()
    world.elapse(50)
    assert world.report() == (Missed("web"),)
    assert world.report() == ()


def test_a_report_that_was_lost_is_due_again() -> None:
    world = World().routing()
    world.elapse(TIMEOUT_MS)
    assert world.watch.due(world.state, world.now_ms) == (Missed("web"),)
    assert world.watch.due(world.state, world.now_ms) == (Missed("web"),)


def test_several_checks_before_a_report_count_as_one() -> None:
    world = World()
    for _ in range(5):
        world.check()
    assert world.report() == (Passed(WEB, 1),)
    assert world.report() == ()


def test_time_in_which_this_process_did_not_run_is_not_held_against_a_node() -> None:
    world = World().routing()
    world.elapse(50)
    world.now_ms += 10 * TIMEOUT_MS
    world.watch.tick(world.state, world.now_ms)
    assert world.report() == ()
    world.elapse(TIMEOUT_MS)
    assert world.report() == (Missed("web"),)


def test_a_node_known_from_the_log_is_missed_though_it_was_never_heard() -> None:
    world = World().routing()
    world.watch = Watch(ME)
    world.watch.tick(world.state, world.now_ms)
    world.elapse(TIMEOUT_MS)
    assert world.report() == (Missed("web"),)


def test_goodbye_and_not_serving_are_said_once() -> None:
    world = World().routing()
    world.check(serving=False)
    assert world.report() == (NotServing("web"),)
    world.state, _ = put(world.state, Report(0, ME, (Passed(WEB, 1),)))
    assert world.report() == ()  # said once a check, and not of what is past
    world = World().routing()
    world.watch.goodbye("web")
    assert world.report() == (Goodbye("web"),)
    assert world.report() == ()


def test_a_banned_node_is_passed_over_and_counts_from_one_afterwards() -> None:
    world = World().routing()
    world.elapse(TIMEOUT_MS)
    world.report()
    assert world.state.nodes["web"].phase is Phase.BANNED
    world.check()
    assert world.report() == ()
    world.state, _ = put(world.state, LiftBans(world.now_ms + 10_000))
    world.check()
    assert world.report() == (Passed(WEB, 1),)
