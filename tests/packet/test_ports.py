"""Source ports: two flows never share a node's view of them, and a port comes free only when its flow is over."""

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.packet.balancer import Balancer, Outcome
from tests.packet.packets import (
    CLIENT,
    NEIGHBOUR,
    NODE_A,
    NODE_B,
    SECOND_VIP,
    SPORT,
    VIP,
    from_client,
    from_node,
    to_client,
    to_node,
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

LINGER_S, OPENING_S, OPEN_S = 0.5, 60, 7440
"""Quiet that bpf/lifetime.h asks for: after an end, before the first answer, and of an open flow."""


def source_port(outcome: Outcome) -> int:
    return int(Ether(outcome.packet)[TCP].sport)


def establish(balancer: Balancer, client: str = CLIENT) -> None:
    """CLIENT's flow with the port it asked for, after its handshake."""
    balancer.public(from_client("S", client=client)).must_be("opened", to_node("S"))
    balancer.private(from_node("SA"))
    balancer.public(from_client("A", client=client))
    balancer.private(from_node("A"))


def play(balancer: Balancer, script: list[tuple[str, str]]) -> None:
    for side, flags in script:
        outcome = balancer.public(from_client(flags)) if side == "client" else balancer.private(from_node(flags))
        assert outcome.verdict in ("forwarded", "returned")


def take(balancer: Balancer) -> bool:
    """Whether the neighbour gets the client's port."""
    outcome = balancer.public(from_client("S", client=NEIGHBOUR))
    assert outcome.verdict == "opened"
    return source_port(outcome) == SPORT


def test_two_clients_with_one_port_are_told_apart(balancer: Balancer) -> None:
    establish(balancer)
    other = balancer.public(from_client("S", client=NEIGHBOUR))
    port = source_port(other)
    assert port != SPORT
    assert port >= 1024
    other.must_be("opened", to_node("S", sport=port))
    balancer.public(from_client("A", client=NEIGHBOUR)).must_be("forwarded", to_node("A", sport=port))
    balancer.public(from_client("A")).must_be("forwarded", to_node("A"))
    balancer.private(from_node("A", dport=port)).must_be("returned", to_client("A", client=NEIGHBOUR))
    balancer.private(from_node("A")).must_be("returned", to_client("A"))


def test_one_client_and_port_to_two_addresses_are_two_flows(balancer: Balancer) -> None:
    establish(balancer)
    port = source_port(balancer.public(from_client("S", to=SECOND_VIP)))
    assert port != SPORT
    balancer.private(from_node("SA", dport=port)).must_be("returned", to_client("SA", source=SECOND_VIP))
    balancer.private(from_node("A")).must_be("returned", to_client("A", source=VIP))


def test_the_same_port_is_free_towards_another_node(balancer: Balancer) -> None:
    establish(balancer)
    balancer.set_slots(NODE_B)
    balancer.public(from_client("S", client=NEIGHBOUR)).must_be("opened", to_node("S", node=NODE_B))


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_a_port_is_free_once_its_connection_has_ended(balancer: Balancer, ending: list[tuple[str, str]]) -> None:
    establish(balancer)
    play(balancer, ending)
    assert not take(balancer), "the last acknowledgements are still on their way"
    balancer.reset()
    establish(balancer)
    play(balancer, ending)
    balancer.quiet(LINGER_S)
    assert take(balancer)
    balancer.private(from_node("SA")).must_be("returned", to_client("SA", client=NEIGHBOUR))
    balancer.public(from_client("A")).must_be("no_flow", from_client("A"))


@pytest.mark.parametrize("ending", HALF_ENDINGS.values(), ids=HALF_ENDINGS.keys())
def test_a_connection_that_has_not_ended_keeps_its_port(balancer: Balancer, ending: list[tuple[str, str]]) -> None:
    establish(balancer)
    play(balancer, ending)
    balancer.quiet(OPEN_S - 1)
    assert not take(balancer)


def test_a_silent_connection_loses_its_port_in_the_end(balancer: Balancer) -> None:
    establish(balancer)
    balancer.quiet(OPEN_S)
    assert take(balancer)


def test_a_node_that_speaks_keeps_the_port(balancer: Balancer) -> None:
    establish(balancer)
    balancer.quiet(OPEN_S)
    balancer.private(from_node("A"))
    assert not take(balancer)


def test_a_handshake_that_never_ends_loses_its_port_soon(balancer: Balancer) -> None:
    balancer.public(from_client("S"))
    balancer.private(from_node("SA"))
    balancer.quiet(OPENING_S - 1)
    assert not take(balancer)
    balancer.quiet(OPENING_S)
    assert take(balancer)


@pytest.mark.parametrize("forged", ["R", "FA"])
def test_a_forged_end_does_no_harm_while_the_node_speaks(balancer: Balancer, forged: str) -> None:
    establish(balancer)
    balancer.private(from_node("FA"))
    balancer.public(from_client(forged))
    balancer.quiet(LINGER_S)
    balancer.private(from_node("A"))
    assert not take(balancer)


def test_a_forged_syn_does_not_move_a_living_flow(balancer: Balancer) -> None:
    establish(balancer)
    balancer.set_slots(NODE_B)
    balancer.public(from_client("S")).must_be("forwarded", to_node("S"))
    balancer.public(from_client("A")).must_be("forwarded", to_node("A"))


def test_a_client_may_use_its_port_again(balancer: Balancer) -> None:
    """By slot, as any new flow; the answers of the new connection make it a living one."""
    establish(balancer)
    play(balancer, ENDINGS["client's RST"])
    balancer.quiet(LINGER_S)
    balancer.set_slots(NODE_B)
    balancer.public(from_client("S")).must_be("opened", to_node("S", node=NODE_B))
    balancer.private(from_node("SA", node=NODE_B)).must_be("returned", to_client("SA"))


def test_using_a_port_again_at_once_begins_a_new_life(balancer: Balancer) -> None:
    establish(balancer)
    play(balancer, ENDINGS["client's RST"])
    balancer.public(from_client("S")).must_be("forwarded", to_node("S"))
    balancer.private(from_node("SA"))
    balancer.quiet(LINGER_S)
    assert not take(balancer)


def test_taking_a_port_spares_the_flow_its_client_has_opened_since(balancer: Balancer) -> None:
    establish(balancer)
    balancer.set_slots(NODE_B)
    balancer.maps.clear_node(1)
    balancer.public(from_client("S")).must_be("opened", to_node("S", node=NODE_B))
    balancer.reset_nodes()
    balancer.set_slots(NODE_A)
    balancer.quiet(OPEN_S)
    assert take(balancer)
    balancer.public(from_client("A")).must_be("forwarded", to_node("A", node=NODE_B))


def test_a_flow_whose_port_went_to_another_opens_anew(balancer: Balancer) -> None:
    """As when `returns` was full: a SYN must not reach the other flow's connection."""
    establish(balancer)
    balancer.forget("returns")
    balancer.expire_copies()
    assert take(balancer)
    outcome = balancer.public(from_client("S"))
    outcome.must_be("opened", to_node("S", sport=source_port(outcome)))
    assert source_port(outcome) != SPORT


def test_all_ports_in_use(balancer: Balancer) -> None:
    """With every port towards the node held by living flows, a new one is refused."""
    establish(balancer)
    balancer.hold_every_port(NODE_A)
    refused: Packet = from_client("S", client=NEIGHBOUR)
    balancer.public(refused).must_be("no_port", refused)
    balancer.public(from_client("A")).must_be("forwarded", to_node("A"))
