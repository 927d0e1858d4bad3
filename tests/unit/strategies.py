"""What hypothesis draws from: small worlds of nodes and load balancers, so that commands meet each other often."""

from hypothesis import strategies as st

from gale.core.apply import apply
from gale.core.commands import (
    Announce,
    Ban,
    Barrier,
    Command,
    Drain,
    Given,
    Goodbye,
    HandOver,
    LiftBans,
    Missed,
    Noted,
    NotServing,
    Observation,
    Origin,
    Passed,
    Proposal,
    Report,
    SetAlive,
    SetWeight,
    Unban,
)
from gale.core.outcome import Outcome
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import ClusterState, NodeInfo

LOAD_BALANCERS = ("10.0.0.1:9090", "10.0.0.2:9090", "10.0.0.3:9090")
NODES = ("a", "b", "c", "d")
SERVICES = (
    Service("default", 8080, 80),
    Service("mail", 25, 25, (), ("tcp", "udp"), "l3", "ipv6"),
    Service("web6", 443, 443, ("2001:db8::1",)),
)
PLAIN = SharedConfig(HealthPolicy(checks_before_routing=2, black_list_after_fails=2), SERVICES)
OTHER = SharedConfig(HealthPolicy(checks_before_routing=3), SERVICES[:1])

times = st.integers(0, 200_000)
load_balancers = st.sampled_from(LOAD_BALANCERS)
nodes = st.sampled_from(NODES)
infos = st.builds(
    NodeInfo,
    id=nodes,
    address=st.sampled_from(["10.1.0.1", "10.1.0.2", "10.1.0.3"]),
    weight=st.integers(1, 4),
    services=st.sampled_from([(), ("default",), ("mail",), ("mail", "web6")]),
    reports_to=st.integers(1, 3),
    address6=st.sampled_from(["", "fd00::1", "fd00::2"]),
    leaving=st.sampled_from([False, False, True]),
)
observations: st.SearchStrategy[Observation] = st.one_of(
    st.builds(Passed, infos, st.integers(0, 5)),
    st.builds(Missed, nodes),
    st.builds(NotServing, nodes),
    st.builds(Goodbye, nodes),
)
announcements = st.builds(
    Announce,
    time_ms=times,
    load_balancer=load_balancers,
    api=st.just("10.0.0.1:5555"),
    version=st.sampled_from(["0.1.0", "0.2.0"]),
    shared=st.sampled_from([PLAIN, OTHER]),
    enforces=st.booleans(),
    leads=st.booleans(),
    members=st.sampled_from([LOAD_BALANCERS, LOAD_BALANCERS[:2], LOAD_BALANCERS[1:]]),
)
reports = st.builds(Report, times, load_balancers, st.lists(observations, max_size=4).map(tuple))
given_by = st.sampled_from([Given(), Given("operator anna", "new disks")])
orders: st.SearchStrategy[Command] = st.one_of(
    st.builds(Drain, times, nodes, st.booleans(), given_by),
    st.builds(Ban, times, nodes, st.sampled_from([0, 0, 5_000]), given_by),
    st.builds(Unban, times, nodes, given_by),
    st.builds(SetWeight, times, nodes, st.sampled_from([0, 1, 7, 1_001]), given_by),
    st.builds(HandOver, times, st.sampled_from(["", *LOAD_BALANCERS]), given_by),
    st.builds(Noted, times, *[st.sampled_from(["", "flows", "x" * 999])] * 4, given_by),
)
commands: st.SearchStrategy[Command] = st.one_of(
    reports,
    reports,
    reports,
    announcements,
    st.builds(SetAlive, times, load_balancers, st.booleans()),
    st.builds(LiftBans, times),
    orders,
    st.builds(Barrier, times),
)


def proposed(command: Command, sequence: int, proposer: str = LOAD_BALANCERS[0], epoch: int = 1) -> Proposal:
    return Proposal(Origin(proposer, epoch, sequence), command)


def put(state: ClusterState, command: Command) -> tuple[ClusterState, Outcome]:
    """Apply a command as the next proposal of a proposer that the state will not forget."""
    epoch, sequence = state.proposers.get(LOAD_BALANCERS[1], (state.forgotten_epoch + 1, 0))
    return apply(state, proposed(command, sequence + 1, LOAD_BALANCERS[1], epoch))
