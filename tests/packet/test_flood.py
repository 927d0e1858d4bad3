"""Many flows at once: who makes room when there is none, and what holds of the tables whatever happens."""

from collections import Counter
from collections.abc import Mapping

import pytest

from tests.packet.balancer import FLOWS, NUMBERS, SLOTS, Balancer
from tests.packet.flood import Flood
from tests.packet.packets import CLIENT, NEIGHBOUR, NODE_A, TALKS, Talk, talk_name

FLOW_PLACES, RETURN_PLACES = 4 * FLOWS, 2 * FLOWS
TENFOLD = range(1 << 24, (1 << 24) + 10 * FLOW_PLACES)
FRIENDS = range(1000)
"""Clients with a flow each, whose handshake is done."""
NODES = {number: f"10.0.1.{number}" for number in range(1, 17)}
NEW, PORTIONS = 500, 16
FULL = range(1 << 20, (1 << 20) + 8 * FLOWS)
"""More clients than there are places, so that next to every place is somebody's."""
AT_WORK_S = 60
"""An established flow that has been heard of within this time makes room for no other."""
PRESSED_S = 3
"""An opening flow has its port for so long at least."""

every_talk = pytest.mark.parametrize("talk", TALKS, ids=talk_name)
every_tcp = pytest.mark.parametrize("talk", [talk for talk in TALKS if talk.tcp], ids=talk_name)


@pytest.fixture(scope="module")
def flooding(loaded: Balancer) -> Flood:
    return Flood(loaded)


@pytest.fixture
def flood(balancer: Balancer, flooding: Flood) -> Flood:
    return flooding


@pytest.fixture
def nodes(balancer: Balancer) -> Mapping[int, str]:
    """Sixteen of them share the slots."""
    for number, address in NODES.items():
        balancer.set_node(number, address)
    balancer.set_owners(1 + slot % len(NODES) for slot in range(SLOTS))
    return NODES


def befriend(flood: Flood, talk: Talk, nodes: Mapping[int, str]) -> None:
    assert flood.send(talk, "S", FRIENDS) == {"opened": len(FRIENDS)}
    flood.answer(talk, nodes)
    assert flood.send(talk, "A", FRIENDS, ack=1) == {"forwarded": len(FRIENDS)}


def must_be_consistent(balancer: Balancer) -> None:
    """No two flows have one port of a node, and each flow has a return path that leads back."""
    flows, returns = (
        Counter((it.node, it.source_port, it.listener, it.client, it.client_port) for it in table.entries())
        for table in (balancer.flows, balancer.returns)
    )
    assert flows <= returns
    views = Counter((node, source_port) for node, source_port, *_ in returns)
    assert views.most_common(1)[0][1] == 1


@every_talk
def test_a_flood_leaves_established_flows_alone(
    balancer: Balancer, flood: Flood, nodes: Mapping[int, str], talk: Talk
) -> None:
    """Ten times as many first packets as there are places, from anybody."""
    befriend(flood, talk, nodes)
    verdicts = flood.send(talk, "S", TENFOLD)
    assert verdicts["opened"] > FLOW_PLACES
    again = flood.send(talk, "A", FRIENDS, ack=1)
    assert again == {"forwarded": len(FRIENDS)}
    if talk == TALKS[0]:
        must_be_consistent(balancer)


@every_tcp
def test_forged_acknowledgements_make_a_flood_no_stronger(
    balancer: Balancer, flood: Flood, nodes: Mapping[int, str], talk: Talk
) -> None:
    """Even if every node answers."""
    befriend(flood, talk, nodes)
    for first in TENFOLD[::FLOW_PLACES]:
        forged = range(first, first + FLOW_PLACES)
        flood.send(talk, "S", forged)
        balancer.mark("answered")
        flood.send(talk, "A", forged, ack=0x12345678)
    again = flood.send(talk, "A", FRIENDS, ack=1)
    assert again == {"forwarded": len(FRIENDS)}
    established = [entry for entry in balancer.returns.entries() if "established" in entry.flags]
    assert len(established) <= len(FRIENDS)


@pytest.mark.parametrize("talk", [talk for talk in TALKS if not talk.tcp], ids=talk_name)
def test_unanswered_datagrams_do_not_establish(
    balancer: Balancer, flood: Flood, nodes: Mapping[int, str], talk: Talk
) -> None:
    befriend(flood, talk, nodes)
    for _ in range(2):
        flood.send(talk, "A", range(TENFOLD.start, TENFOLD.start + FLOW_PLACES))
    established = [entry for entry in balancer.flows.entries() if "established" in entry.flags]
    assert len(established) <= len(FRIENDS)


@every_talk
def test_a_flood_on_one_node_takes_its_ports_for_seconds(balancer: Balancer, flood: Flood, talk: Talk) -> None:
    befriend(flood, talk, {NUMBERS[NODE_A]: NODE_A})
    verdicts = flood.send(talk, "S", TENFOLD)
    assert verdicts["no_port"] > 0.8 * len(TENFOLD)
    stranger = talk.from_client("S", client=NEIGHBOUR, sport=1)
    balancer.quiet(PRESSED_S)
    assert balancer.public(stranger).verdict == "opened"
    assert flood.send(talk, "A", FRIENDS, ack=1) == {"forwarded": len(FRIENDS)}


@every_tcp
def test_as_many_flows_as_promised(balancer: Balancer, flood: Flood, nodes: Mapping[int, str], talk: Talk) -> None:
    """All at a time, of clients by chance: where five meet in a set of four places, one of them loses."""
    everybody = range(1 << 20, (1 << 20) + FLOWS)
    for first in everybody[:: FLOWS // PORTIONS]:
        flood.send(talk, "S", range(first, first + FLOWS // PORTIONS))
        balancer.mark("established")
    again = flood.send(talk, "A", everybody)
    assert again["forwarded"] >= 0.99 * FLOWS, again


@every_tcp
def test_whoever_has_been_quiet_longest_makes_room(
    balancer: Balancer, flood: Flood, nodes: Mapping[int, str], talk: Talk
) -> None:
    """Where every place is an established flow's. By chance it would be a lively one's as often as not."""
    lively = FULL[-FLOWS:]
    flood.send(talk, "S", FULL)
    balancer.mark("established")
    balancer.quiet(100)
    before = flood.send(talk, "A", lively)["forwarded"]
    assert before > FLOWS / 2
    assert flood.send(talk, "S", range(NEW))["opened"] > 0.95 * NEW
    assert flood.send(talk, "A", lively)["forwarded"] == before


@every_tcp
def test_who_is_at_work_makes_room_for_nobody(
    balancer: Balancer, flood: Flood, nodes: Mapping[int, str], talk: Talk
) -> None:
    """Where the places of a new flow are all theirs, it has to wait."""
    flood.send(talk, "S", FULL)
    balancer.mark("established")
    before = flood.send(talk, "A", FULL)["forwarded"]
    verdicts = flood.send(talk, "S", TENFOLD)
    assert verdicts["no_room"] + verdicts["no_port"] > 0.9 * len(TENFOLD)
    assert flood.send(talk, "A", FULL)["forwarded"] == before
    balancer.quiet(AT_WORK_S)
    assert flood.send(talk, "S", range(NEW)) == {"opened": NEW}


def test_one_client_that_hurries(balancer: Balancer, flood: Flood) -> None:
    """All of its flows within a moment, and none has the port that its client has: chance is another for each."""
    ports = range(10_000, 20_000)
    for client in (NEIGHBOUR, CLIENT):
        assert flood.send(TALKS[0], "S", ports, address=client) == {"opened": len(ports)}
    assert len(balancer.returns.entries()) == 2 * len(ports)
    must_be_consistent(balancer)
