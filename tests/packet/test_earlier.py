"""A start of gale-lb with another mode or target port of a service: flows that are open go on as they began."""

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from gale.dataplane import listeners
from tests.packet.balancer import SETTINGS, Balancer
from tests.packet.packets import (
    NODE_A,
    NODE_MACS,
    PRIVATE_MAC,
    PUBLIC_MAC,
    ROUTER,
    ROUTER_MAC,
    SOURCE,
    SPORT,
    TALKS,
    VIP,
    WEB_ON_NODES,
    Talk,
    packet_of,
    talk_name,
)

OTHER_PORT = 9090

every_talk = pytest.mark.parametrize("talk", TALKS, ids=talk_name)
every_tcp = pytest.mark.parametrize("talk", [talk for talk in TALKS if talk.tcp], ids=talk_name)


def start_again(balancer: Balancer, **changes: Any) -> None:
    """With changes of the service "web"; what flows know stays."""
    changed = tuple(
        replace(listener, **changes) if listener.service == "web" else listener for listener in SETTINGS.listeners
    )
    used = {entry.listener for entry in balancer.flows.entries()}
    directory = listeners.number(changed, SETTINGS.services, balancer.maps.directory, used)
    balancer.begin(replace(SETTINGS, listeners=changed), directory)


def bridged(packet: Packet) -> Packet:
    """As l2 sends it on."""
    frame = packet.copy()
    frame[Ether].src, frame[Ether].dst = PRIVATE_MAC, NODE_MACS[NODE_A]
    return frame


def establish(balancer: Balancer, talk: Talk) -> None:
    balancer.public(talk.from_client("S"))
    balancer.private(talk.from_node("SA"))
    balancer.public(talk.from_client())


def must_go_on(balancer: Balancer, talk: Talk) -> None:
    """In both directions, and still after a second, when more is looked at; errors, too."""
    for seconds in (0, 2, 0):
        balancer.quiet(seconds)
        balancer.public(talk.from_client()).must_be("forwarded", talk.to_node())
        balancer.private(talk.from_node()).must_be("returned", talk.to_client())
    sent, seen = (bytes(packet_of(make(ttl=9))) for make in (talk.from_node, talk.to_client))
    balancer.public(talk.error((ROUTER_MAC, PUBLIC_MAC), (ROUTER, VIP), seen, ttl=64)).must_be(
        "error_forwarded", talk.error((PRIVATE_MAC, NODE_MACS[NODE_A]), (SOURCE, NODE_A), sent, ttl=63)
    )


@every_talk
def test_another_target_port(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    start_again(balancer, target_port=OTHER_PORT)
    must_go_on(balancer, talk)
    new = talk.from_client("S", sport=SPORT + 1)
    balancer.public(new).must_be("opened", talk.to_node("S", sport=SPORT + 1, dport=OTHER_PORT))
    answer = talk.from_node("SA", sport=OTHER_PORT, dport=SPORT + 1)
    balancer.private(answer).must_be("returned", talk.to_client("SA", dport=SPORT + 1))
    must_go_on(balancer, talk)


@every_talk
def test_a_change_that_is_taken_back(balancer: Balancer, talk: Talk) -> None:
    """Flows of both are open then."""
    establish(balancer, talk)
    start_again(balancer, target_port=OTHER_PORT)
    balancer.public(talk.from_client("S", sport=SPORT + 1))
    start_again(balancer, target_port=WEB_ON_NODES)
    must_go_on(balancer, talk)
    other = talk.from_client(sport=SPORT + 1)
    balancer.public(other).must_be("forwarded", talk.to_node(sport=SPORT + 1, dport=OTHER_PORT))
    balancer.public(talk.from_client("S", sport=7)).must_be("opened", talk.to_node("S", sport=7))


@every_talk
def test_from_l4_to_l2(balancer: Balancer, talk: Talk) -> None:
    establish(balancer, talk)
    start_again(balancer, mode="l2")
    must_go_on(balancer, talk)
    new = talk.from_client("S", sport=SPORT + 1)
    balancer.public(new).must_be("bridged", bridged(new))
    balancer.public(talk.from_client(sport=SPORT + 1)).must_be("bridged", bridged(talk.from_client(sport=SPORT + 1)))


@every_tcp
def test_from_l2_to_l4(balancer: Balancer, talk: Talk) -> None:
    """Nobody knows a connection that was stateless, so what is not known is taken for one."""
    start_again(balancer, mode="l2")
    balancer.public(talk.from_client("S")).must_be("bridged", bridged(talk.from_client("S")))
    start_again(balancer)
    balancer.public(talk.from_client()).must_be("bridged", bridged(talk.from_client()))
    balancer.public(talk.from_client("S", sport=SPORT + 1)).must_be("opened", talk.to_node("S", sport=SPORT + 1))
    balancer.public(talk.from_client(sport=SPORT + 1)).must_be("forwarded", talk.to_node(sport=SPORT + 1))


@every_tcp
def test_a_syn_begins_a_flow_of_the_present_service(balancer: Balancer, talk: Talk) -> None:
    """Also where the client had one of the earlier."""
    establish(balancer, talk)
    start_again(balancer, target_port=OTHER_PORT)
    balancer.public(talk.from_client("S")).must_be("opened", talk.to_node("S", dport=OTHER_PORT))
    balancer.public(talk.from_client()).must_be("forwarded", talk.to_node(dport=OTHER_PORT))
