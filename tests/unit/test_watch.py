"""What a load balancer reports of what it saw: edges, not beats."""

from dataclasses import replace

from hypothesis import given

from gale.core.commands import (
    Announce,
    Goodbye,
    LiftBans,
    Missed,
    NotServing,
    Observation,
    Passed,
    Report,
    bytes_most,
)
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import MAX_NODES, ClusterState, NodeInfo, Phase
from gale.core.watch import Watch
from gale.rpc.codec import encode
from gale.rpc.raft_codec import COMMAND_MAX
from tests.unit.strategies import observations, proposed, put

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


def test_a_report_holds_no_more_than_a_command_may_and_the_rest_follows() -> None:
    world = World()
    infos = [NodeInfo(f"n{i}", f"10.2.{i // 250}.{i % 250}", 1, ("x" * 64,) * 64) for i in range(40)]
    for info in infos:
        world.watch.check(info, True, 0)
    heard: list[str] = []
    while due := world.watch.due(world.state, world.now_ms):
        proposal = proposed(Report(0, ME, due), 1)
        assert len(encode(proposal)) < COMMAND_MAX
        heard += [observation.node.id for observation in due if isinstance(observation, Passed)]
    assert heard == [info.id for info in infos]


@given(observations)
def test_no_observation_is_longer_in_the_log_than_it_is_counted(observation: Observation) -> None:
    empty = len(encode(proposed(Report(0, ME, ()), 1)))
    assert len(encode(proposed(Report(0, ME, (observation,)), 1))) - empty <= bytes_most(observation)


def test_strangers_fill_no_memory_and_push_nobody_out() -> None:
    world = World().routing()
    for i in range(MAX_NODES + 10):
        world.watch.check(NodeInfo(f"stranger-{i}", "10.9.0.1"), True, world.now_ms)
    world.check()
    assert len(world.watch._seen) == MAX_NODES
    assert world.watch.row("web", world.now_ms) > 3
    world.elapse(TIMEOUT_MS)
    world.state, _ = put(world.state, Report(0, ME, ()))
    while len(world.watch._seen) > 1:
        world.watch.due(world.state, world.now_ms)
    assert list(world.watch._seen) == ["web"]


def test_silence_is_found_however_often_others_are_heard() -> None:
    world = World().routing()
    world.watch.check(NodeInfo("db", "10.1.0.2"), True, world.now_ms)
    assert world.report()
    for _ in range(TIMEOUT_MS // 50):
        world.check()
        world.elapse(50)
    assert world.report() == (Missed("db"),)


def test_the_next_silence_is_known_to_the_millisecond() -> None:
    world = World().routing()
    assert world.watch.until_silence_ms(world.now_ms + 400) == TIMEOUT_MS - 400
    assert world.watch.until_silence_ms(world.now_ms + TIMEOUT_MS) is None
    assert Watch(ME).until_silence_ms(world.now_ms) is None


def policy(world: World, timeout_ms: int) -> None:
    shared = replace(SHARED, health=replace(SHARED.health, checks_timeout_ms=timeout_ms))
    world.state, _ = put(world.state, Announce(world.now_ms, ME, "", "0.1.0", shared, enforces=False, leads=True))


def test_a_shorter_timeout_waits_for_nodes_that_go_on_as_they_were_told() -> None:
    world = World().routing()
    policy(world, 1_000)
    for _ in range(3):  # a check every third of the old timeout, which is all of the new one
        world.elapse(TIMEOUT_MS // 3)
        assert not world.report()
        world.check()
    world.elapse(1_050)  # the old one is over
    assert world.report() == (Missed("web"),)


def test_a_longer_timeout_holds_at_once() -> None:
    world = World().routing()
    world.elapse(TIMEOUT_MS - 50)
    policy(world, 2 * TIMEOUT_MS)
    world.elapse(TIMEOUT_MS)
    assert not world.report()
    world.elapse(100)
    assert world.report() == (Missed("web"),)
