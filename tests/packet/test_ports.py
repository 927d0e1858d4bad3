"""Source ports: no two flows share a node's view of them, and a port comes free only when its flow is over."""

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether

from tests.packet.balancer import FLOWS, NUMBERS, Balancer, Outcome
from tests.packet.packets import (
    CLIENT,
    NEIGHBOUR,
    NODE_A,
    NODE_B,
    SECOND_VIP,
    SPORT,
    TALKS,
    VIP,
    Talk,
    talk_name,
)

# Packets after which a connection is over, in both orders and from either side.
ENDINGS: dict[str, list[tuple[str, str]]] = {
    "client's FIN, then the node's": [("client", "FA"), ("node", "FA")],
    "node's FIN, then the client's": [("node", "FA"), ("client", "FA")],
    "client's RST": [("client", "R")],
    "node's RST": [("node", "RA")],
}
HALF_ENDINGS: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "client's FIN": [("client", "FA")],
    "node's FIN": [("node", "FA")],
}

LINGER_S, OPENING_S, ESTABLISHED_S = 0.5, 60, 7440
UNANSWERED_S, ANSWERED_S, AT_WORK_S = 30, 180, 60
"""Quiet that bpf/lifetime.h asks for: of TCP after an end, before the handshake's end and after it; of UDP before an
answer and after it; of an established flow that makes room."""
PORT_PROBES = 16
FIRST_FLIGHT = 16384
"""Bytes a node may send before its client's first acknowledgement."""

TCP_ONLY = [talk for talk in TALKS if talk.tcp]
UDP_ONLY = [talk for talk in TALKS if not talk.tcp]

every_talk = pytest.mark.parametrize("talk", TALKS, ids=talk_name)
every_tcp = pytest.mark.parametrize("talk", TCP_ONLY, ids=talk_name)
every_udp = pytest.mark.parametrize("talk", UDP_ONLY, ids=talk_name)


def source_port(outcome: Outcome) -> int:
    frame = Ether(outcome.packet)
    return int(frame[TCP if TCP in frame else UDP].sport)


def establish(balancer: Balancer, talk: Talk, client: str = CLIENT, sport: int = SPORT) -> None:
    """A client's flow with the port it asked for, after its handshake."""
    first = talk.from_client("S", client=client, sport=sport)
    balancer.public(first).must_be("opened", talk.to_node("S", sport=sport))
    balancer.private(talk.from_node("SA", dport=sport))
    balancer.public(talk.from_client(client=client, sport=sport))
    balancer.private(talk.from_node(dport=sport))


def established(balancer: Balancer) -> bool:
    """The only flow there is, by both of its entries."""
    flags = [entry.flags for table in (balancer.flows, balancer.returns) for entry in table.entries()]
    assert len(flags) == 2
    assert ("established" in flags[0]) == ("established" in flags[1])
    return "established" in flags[0]


def play(balancer: Balancer, talk: Talk, script: list[tuple[str, str]]) -> None:
    for side, flags in script:
        outcome = (
            balancer.public(talk.from_client(flags)) if side == "client" else balancer.private(talk.from_node(flags))
        )
        assert outcome.verdict in ("forwarded", "returned")


def take(balancer: Balancer, talk: Talk) -> bool:
    """Whether the neighbour gets the client's port."""
    outcome = balancer.public(talk.from_client("S", client=NEIGHBOUR))
    assert outcome.verdict == "opened"
    return source_port(outcome) == SPORT


@every_talk
def test_two_clients_with_one_port_are_told_apart(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    other = balancer.public(talk.from_client("S", client=NEIGHBOUR))
    port = source_port(other)
    assert port != SPORT
    assert port >= 1024
    other.must_be("opened", talk.to_node("S", sport=port))
    balancer.public(talk.from_client(client=NEIGHBOUR)).must_be("forwarded", talk.to_node(sport=port))
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())
    balancer.private(talk.from_node(dport=port)).must_be("returned", talk.to_client(client=NEIGHBOUR))
    balancer.private(talk.from_node()).must_be("returned", talk.to_client())


@every_talk
def test_one_client_and_port_to_two_addresses_are_two_flows(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    port = source_port(balancer.public(talk.from_client("S", to=SECOND_VIP)))
    assert port != SPORT
    balancer.private(talk.from_node("SA", dport=port)).must_be("returned", talk.to_client("SA", source=SECOND_VIP))
    balancer.private(talk.from_node()).must_be("returned", talk.to_client(source=VIP))


def test_a_port_is_one_of_its_protocol_and_ip_version(balancer: Balancer) -> None:
    """A node tells these apart, so each flow keeps its client's port."""
    for talk in TALKS:
        establish(balancer, talk)
    for talk in TALKS:
        balancer.private(talk.from_node()).must_be("returned", talk.to_client())


@every_talk
def test_the_same_port_is_free_towards_another_node(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    balancer.set_slots(NODE_B)
    first = talk.from_client("S", client=NEIGHBOUR)
    balancer.public(first).must_be("opened", talk.to_node("S", node=NODE_B))


def test_a_thousand_clients_with_one_port(balancer: Balancer) -> None:
    """Each has a port of its own, from the first packet on; lab has seen 1 to 8 % of them without one."""
    talk = TALKS[0]
    ports = set()
    for number in range(1000):
        outcome = balancer.public(talk.from_client("S", client=f"198.18.{number // 250}.{number % 250}"))
        assert outcome.verdict == "opened"
        ports.add(source_port(outcome))
    assert len(ports) == 1000


@pytest.mark.parametrize("talk", TALKS, ids=talk_name)
def test_one_client_with_a_thousand_ports_that_are_taken(balancer: Balancer, talk: Talk) -> None:
    """Chance differs from port to port, though the client and the moment do not."""
    for client in (CLIENT, NEIGHBOUR):
        for sport in range(20000, 20500):
            assert balancer.public(talk.from_client("S", client=client, sport=sport)).verdict == "opened"
    ports = [entry.source_port for entry in balancer.flows.entries()]
    assert len(ports) == len(set(ports)) == 1000


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
@every_tcp
def test_a_port_is_free_once_its_connection_has_ended(
    balancer: Balancer, talk: Talk, ending: list[tuple[str, str]]
) -> None:
    establish(balancer, talk)
    play(balancer, talk, ending)
    assert not take(balancer, talk), "the last acknowledgements are still on their way"
    balancer.reset()
    establish(balancer, talk)
    play(balancer, talk, ending)
    balancer.quiet(LINGER_S)
    assert take(balancer, talk)
    balancer.private(talk.from_node("SA")).must_be("returned", talk.to_client("SA", client=NEIGHBOUR))
    balancer.public(talk.from_client()).must_be("no_flow", talk.from_client())


@pytest.mark.parametrize("ending", HALF_ENDINGS.values(), ids=HALF_ENDINGS.keys())
@every_tcp
def test_a_connection_that_has_not_ended_keeps_its_port(
    balancer: Balancer, talk: Talk, ending: list[tuple[str, str]]
) -> None:
    establish(balancer, talk)
    play(balancer, talk, ending)
    balancer.quiet(ESTABLISHED_S - 5)
    assert not take(balancer, talk)


@every_tcp
def test_a_silent_connection_loses_its_port_in_the_end(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    balancer.quiet(ESTABLISHED_S)
    assert take(balancer, talk)


@pytest.mark.parametrize("side", ["client", "node"])
@every_talk
def test_whoever_speaks_keeps_the_port(balancer: Balancer, talk: Talk, side: str) -> None:
    establish(balancer, talk)
    balancer.quiet((ESTABLISHED_S if talk.tcp else ANSWERED_S) - 5)
    play(balancer, talk, [(side, "A")])
    balancer.quiet(5)
    assert not take(balancer, talk)


@every_tcp
def test_a_handshake_that_never_ends_loses_its_port_soon(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client("S"))
    balancer.private(talk.from_node("SA"))
    balancer.quiet(OPENING_S - 5)
    assert not take(balancer, talk)
    balancer.quiet(OPENING_S)
    assert take(balancer, talk)


@every_udp
def test_datagrams_nobody_answers_lose_their_port_soon(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client())
    balancer.quiet(UNANSWERED_S - 5)
    assert not take(balancer, talk)
    balancer.quiet(UNANSWERED_S)
    assert take(balancer, talk)


@every_udp
def test_answered_datagrams_keep_their_port_longer(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client())
    balancer.private(talk.from_node())
    balancer.quiet(ANSWERED_S - 5)
    assert not take(balancer, talk)
    balancer.quiet(ANSWERED_S)
    assert take(balancer, talk)


@every_udp
def test_the_next_datagram_of_a_flow_that_is_over_begins_another(balancer: Balancer, talk: Talk) -> None:
    """By slot."""
    establish(balancer, talk)
    balancer.set_slots(NODE_B)
    balancer.quiet(ANSWERED_S)
    balancer.public(talk.from_client()).must_be("opened", talk.to_node(node=NODE_B))


@pytest.mark.parametrize("forged", ["R", "FA"])
@every_tcp
def test_a_forged_end_does_no_harm_while_the_node_speaks(balancer: Balancer, talk: Talk, forged: str) -> None:
    establish(balancer, talk)
    balancer.private(talk.from_node("FA"))
    balancer.public(talk.from_client(forged))
    balancer.quiet(LINGER_S)
    balancer.private(talk.from_node())
    assert not take(balancer, talk)


@every_talk
def test_a_forged_syn_does_not_move_a_living_flow(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    balancer.set_slots(NODE_B)
    balancer.public(talk.from_client("S")).must_be("forwarded", talk.to_node("S"))
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())


@every_tcp
def test_a_client_may_use_its_port_again(balancer: Balancer, talk: Talk) -> None:
    """By slot, as any new flow; the answers of the new connection make it a living one."""
    establish(balancer, talk)
    play(balancer, talk, ENDINGS["client's RST"])
    balancer.quiet(LINGER_S)
    balancer.set_slots(NODE_B)
    balancer.public(talk.from_client("S")).must_be("opened", talk.to_node("S", node=NODE_B))
    balancer.private(talk.from_node("SA", node=NODE_B)).must_be("returned", talk.to_client("SA"))


@every_tcp
def test_using_a_port_again_at_once_begins_a_new_life(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    play(balancer, talk, ENDINGS["client's RST"])
    balancer.public(talk.from_client("S")).must_be("forwarded", talk.to_node("S"))
    balancer.private(talk.from_node("SA", seq=1000))
    balancer.public(talk.from_client(ack=1001))
    assert established(balancer)
    balancer.quiet(ESTABLISHED_S - 5)
    assert not take(balancer, talk)


@every_tcp
def test_an_ack_of_what_the_node_has_chosen_establishes(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client("S"))
    assert not established(balancer)
    balancer.private(talk.from_node("SA", seq=4711))
    assert not established(balancer)
    balancer.public(talk.from_client(ack=4712))
    assert established(balancer)


@every_tcp
def test_a_node_may_have_sent_much_before_that_ack(balancer: Balancer, talk: Talk) -> None:
    """With TCP Fast Open. Sequence numbers go round."""
    balancer.public(talk.from_client("S"))
    balancer.private(talk.from_node("SA", seq=0xFFFFFFFF))
    balancer.public(talk.from_client(ack=FIRST_FLIGHT - 1))
    assert established(balancer)


@pytest.mark.parametrize("ack", [0, 4711, 4712 + FIRST_FLIGHT, 4712 + 2**31, 4712 - FIRST_FLIGHT + 2**32, 0xFFFFFFFF])
@every_tcp
def test_a_forged_ack_does_not_establish(balancer: Balancer, talk: Talk, ack: int) -> None:
    """Who does not see what the node has sent does not know its sequence number."""
    balancer.public(talk.from_client("S"))
    balancer.public(talk.from_client(ack=ack))
    balancer.private(talk.from_node("SA", seq=4711))
    for flags in ("A", "PA", "FA", "SA"):
        balancer.public(talk.from_client(flags, ack=ack))
    assert not established(balancer)
    balancer.quiet(OPENING_S)
    assert take(balancer, talk)


@every_tcp
def test_an_ack_before_the_answer_does_not_establish(balancer: Balancer, talk: Talk) -> None:
    """Nothing has been chosen yet; zero is a number like any other."""
    balancer.public(talk.from_client("S"))
    balancer.public(talk.from_client(ack=0))
    balancer.public(talk.from_client(ack=1))
    assert not established(balancer)


@every_udp
def test_going_on_after_an_answer_establishes(balancer: Balancer, talk: Talk) -> None:
    for _ in range(2):
        balancer.public(talk.from_client())
        assert not established(balancer)
    balancer.private(talk.from_node())
    assert not established(balancer)
    balancer.public(talk.from_client())
    assert established(balancer)


@every_talk
def test_taking_a_port_spares_the_flow_its_client_has_opened_since(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    balancer.set_slots(NODE_B)
    balancer.maps.clear_node(NUMBERS[NODE_A])
    balancer.public(talk.from_client("S")).must_be("opened", talk.to_node("S", node=NODE_B))
    balancer.reset_nodes()
    balancer.set_slots(NODE_A)
    balancer.quiet(ESTABLISHED_S)
    assert take(balancer, talk)
    balancer.public(talk.from_client("A" if talk.tcp else "S", client=NEIGHBOUR)).must_be("forwarded", talk.to_node())
    if talk.tcp:
        balancer.public(talk.from_client()).must_be("forwarded", talk.to_node(node=NODE_B))


@every_talk
def test_a_flow_whose_port_went_to_another_opens_anew(balancer: Balancer, talk: Talk) -> None:
    """As when two processors raced for it. It is looked at once a second, and by every SYN."""
    establish(balancer, talk)
    balancer.returns.clear()
    assert take(balancer, talk)
    if not talk.tcp:
        balancer.quiet(2)
    outcome = balancer.public(talk.from_client("S"))
    outcome.must_be("opened", talk.to_node("S", sport=source_port(outcome)))
    assert source_port(outcome) != SPORT


@every_tcp
def test_a_flow_whose_fins_met_on_two_processors_has_ended(balancer: Balancer, talk: Talk) -> None:
    """Each of them saw one FIN alone. Whatever is noted next ends the flow."""
    establish(balancer, talk)
    for flag in ("client_fin", "node_fin"):
        balancer.returns.mark(flag)
    balancer.quiet(2)
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())
    balancer.quiet(LINGER_S)
    balancer.public(talk.from_client("S", client=NEIGHBOUR)).must_be("opened", talk.to_node("S"))


@every_talk
def test_all_ports_in_use(balancer: Balancer, talk: Talk) -> None:
    """With every port towards the node held by living flows, a new one is refused; until one of those is over. Another
    node's places are the same here, and to be had when those flows are quiet."""
    establish(balancer, talk)
    balancer.hold_every_port()
    refused = talk.from_client("S", client=NEIGHBOUR, sport=SPORT + 1)
    for _ in range(3):
        balancer.public(refused).must_be("no_port", refused)
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())
    balancer.set_slots(NODE_B)
    balancer.public(refused).must_be("no_port", refused)
    balancer.quiet(AT_WORK_S)
    balancer.public(refused).must_be("opened", talk.to_node("S", node=NODE_B, sport=SPORT + 1))


@every_talk
def test_ports_come_free_again(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    balancer.hold_every_port()
    refused = talk.from_client("S", client=NEIGHBOUR, sport=SPORT + 1)
    balancer.public(refused).must_be("no_port", refused)
    balancer.quiet(ESTABLISHED_S)
    balancer.public(refused).must_be("opened", talk.to_node("S", sport=SPORT + 1))


def test_as_many_places_as_ports() -> None:
    """Which those tests rely on."""
    assert 2 * FLOWS == 1 << 16
