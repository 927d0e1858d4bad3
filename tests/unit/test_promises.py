"""The promises that concern the state, after every one of many random commands."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gale.core.apply import screen
from gale.core.commands import Announce, Command, Report
from gale.core.health import Judgement, judge
from gale.core.outcome import Applied
from gale.core.plan import after, plan
from gale.core.state import MAX_TRANSITIONS, ClusterState, NodeInfo, Phase
from gale.core.view import View
from gale.rpc.codec import decode, encode
from gale.rpc.snapshot_codec import SnapshotReader, encode_snapshot
from tests.unit.strategies import LOAD_BALANCERS, PLAIN, announcements, commands, proposed, put

logs = st.lists(commands, max_size=30)
slow = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def started() -> ClusterState:
    """Three load balancers that agree, so that most drawn reports count."""
    state = ClusterState()
    for position, address in enumerate(LOAD_BALANCERS):
        state, _ = put(state, Announce(0, address, "10.0.0.1:5555", "0.1.0", PLAIN, False, position == 0))
    return state


def restored(state: ClusterState) -> ClusterState:
    """From its snapshot."""
    entries, reader = ((b"\x01", 7, 2), (b"\x00command", 8, 3)), SnapshotReader()
    for piece in encode_snapshot(state, *entries):
        reader.feed(piece)
    read, *its_entries = reader.finish()
    assert tuple(its_entries) == entries
    return read


def run(log: Sequence[Command]) -> list[ClusterState]:
    states = [started()]
    for command in log:
        states.append(put(states[-1], command)[0])
    return states


def takes_part(info: NodeInfo, service: str) -> bool:
    return (not info.services or service in info.services) and (service != "web6" or info.address6 != "")


@slow
@given(logs)
def test_no_slot_names_a_node_that_is_not_routing(log: list[Command]) -> None:
    for state in run(log):
        phases = {node.number: node.phase for node in state.nodes.values()}
        for service in state.tables:
            assert {phases[number] for number in state.view().owners(service)} <= {Phase.ROUTING}


@slow
@given(logs)
def test_every_routing_node_of_a_service_has_its_share(log: list[Command]) -> None:
    for state in run(log):
        for name, table in state.tables.items():
            held = Counter(memoryview(table.owners).cast("H"))
            weights = {
                node.number: node.weight
                for node in state.nodes.values()
                if node.phase is Phase.ROUTING and takes_part(node.info, name)
            }
            total, slots = sum(weights.values()), held.total()
            assert all(abs(held[number] * total - slots * weight) < total for number, weight in weights.items())


@slow
@given(logs)
def test_equal_logs_give_equal_states_also_over_the_wire(log: list[Command]) -> None:
    assert run(log)[-1] == run([decode(encode(proposed(command, 1))).command for command in log])[-1]


@slow
@given(logs)
def test_a_state_survives_its_snapshot(log: list[Command]) -> None:
    state = run(log)[-1]
    assert restored(state) == state


@slow
@given(logs, logs)
def test_a_state_goes_on_after_its_snapshot_as_it_would_have_without(log: list[Command], rest: list[Command]) -> None:
    state = run(log)[-1]
    other = restored(state)
    for command in rest:
        (state, outcome), (other, its_outcome) = put(state, command), put(other, command)
        assert (state, outcome) == (other, its_outcome)


@slow
@given(logs)
def test_numbers_and_forwarding_addresses_are_unique(log: list[Command]) -> None:
    for state in run(log):
        numbers = [node.number for node in state.nodes.values()]
        assert len(numbers) == len(set(numbers))
        views = list(state.view().nodes.values())
        given = [address for addresses in views for address in addresses if address]
        assert len(given) == len(set(given))


@slow
@given(logs)
def test_the_index_of_addresses_is_that_of_the_nodes_and_none_has_two_in_use(log: list[Command]) -> None:
    for state in run(log):
        index: dict[str, tuple[str, ...]] = {}
        for name, node in sorted(state.nodes.items()):
            for address in node.info.addresses:
                index[address] = (*index.get(address, ()), name)
        assert state.addresses == index
        for names in index.values():
            assert sum(any(state.nodes[name].checks.values()) for name in names) <= 1


@slow
@given(logs)
def test_phases_agree_with_the_judgement_of_the_load_balancers(log: list[Command]) -> None:
    for state in run(log)[1:]:
        for node in state.nodes.values():
            verdict = judge(
                node.checks, node.info.reports_to, state.voters(), state.shared.health.checks_before_routing
            )
            if node.phase.forwards and node.info.reports_to == 3 and state.transitions:
                assert verdict is not Judgement.FALLS or node.phase is Phase.DRAINING
            assert node.banned_until_ms is None or node.phase is Phase.BANNED  # a ban may be without an end
            assert node.phase is not Phase.LEFT or not node.checks


@slow
@given(logs)
def test_time_and_generation_never_run_backwards_and_views_are_numbered(log: list[Command]) -> None:
    states = run(log)
    for before, state in pairwise(states):
        assert state.clock_ms >= before.clock_ms
        old, new = before.view(), state.view()
        changed = (old.nodes, old.slots) != (new.nodes, new.slots)
        assert state.generation == before.generation + changed


@slow
@given(logs)
def test_every_change_of_phase_is_recorded_in_order(log: list[Command]) -> None:
    states = run(log)
    for before, state in pairwise(states):
        recorded = {t.subject for t in state.transitions if t not in before.transitions}
        for name, node in state.nodes.items():
            if name not in before.nodes or before.nodes[name].phase is not node.phase:
                assert f"node {name}" in recorded
    sequences = [transition.sequence for transition in states[-1].transitions]
    assert sequences == list(range(1, len(sequences) + 1))
    assert len(sequences) <= MAX_TRANSITIONS


@slow
@given(logs)
def test_a_screened_report_is_taken_whole(log: list[Command]) -> None:
    state = started()
    for command in log:
        if isinstance(command, Report):
            screened, _ = screen(state, command)
            state, outcome = put(state, screened)
            assert not isinstance(outcome, Applied) or not outcome.refusals
        else:
            state, _ = put(state, command)


@slow
@given(logs, st.data())
def test_a_plan_cut_off_after_any_write_leaves_no_slot_without_its_node(
    log: list[Command], data: st.DataObject
) -> None:
    views = [View(), *(state.view() for state in run(log))]
    old, new = data.draw(st.sampled_from(views)), views[-1]
    view = old
    for write in plan(old, new):
        view = after(view, write)  # raises when a slot would name a missing node
        assert all(view.owners(service) <= view.nodes.keys() for service in view.slots)
        rest = view
        for again in plan(view, new):  # whoever takes over from here arrives at the same place
            rest = after(rest, again)
        assert (rest.nodes, rest.slots) == (new.nodes, {**old.slots, **new.slots})
    assert (view.nodes, view.slots) == (new.nodes, {**old.slots, **new.slots})


@given(announcements)
def test_announcements_survive_the_wire(command: Command) -> None:
    proposal = proposed(command, 7, epoch=1_753_000_000_000)
    assert decode(encode(proposal)) == proposal
