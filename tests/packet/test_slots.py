"""From a flow to its node: the packet path and the oracle agree, and the hash spreads."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from gale.core.view import NO_NODE
from tests.packet.balancer import NUMBERS, SLOTS, Balancer
from tests.packet.oracle import slot
from tests.packet.packets import CLIENT, NODE_A, NODE_B, VIP, WEB, Talk

PORTS = st.integers(1, 65535)
MANY_SLOTS = 16384
PROTOCOLS = {"tcp": 6, "udp": 17}
TALKS = [Talk(version, protocol) for version in (4, 6) for protocol in PROTOCOLS]
OF_BOTH_VERSIONS = st.tuples(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))


@pytest.mark.parametrize("talk", TALKS, ids=str)
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clients=OF_BOTH_VERSIONS, sport=PORTS)
def test_the_slot_is_the_oracles(balancer: Balancer, talk: Talk, clients: tuple[str, str], sport: int) -> None:
    """One slot has an owner: the one the oracle names."""
    balancer.forget_flows()
    client = clients[talk.version == 6]
    number = slot(client, sport, talk.address(VIP), WEB, SLOTS, PROTOCOLS[talk.protocol])
    balancer.set_owners(NUMBERS[NODE_B] if index == number else NO_NODE for index in range(SLOTS))
    assert balancer.public(talk.from_client("S", client=client, sport=sport)).verdict == "opened"


def test_slots_of_one_service_are_not_anothers(balancer: Balancer) -> None:
    balancer.set_slots(NODE_B, "tls")
    outcome = balancer.public(Talk().from_client("S"))
    assert (outcome.verdict, Ether(outcome.packet)[IP].dst) == ("opened", NODE_A)


def test_flows_spread_evenly() -> None:
    """Neighbouring clients and ports, the worst case of a weak hash: a chi-square test with 255 degrees of freedom."""
    samples = [(f"198.51.100.{host}", port) for host in range(1, 65) for port in range(40000, 41024)]
    counts = Counter(slot(client, port, VIP, WEB, 256) for client, port in samples)
    expected = len(samples) / 256
    chi_square = sum((counts[index] - expected) ** 2 / expected for index in range(256))
    assert 170 < chi_square < 360, "outside of this lie less than one in 10,000 hashes by chance"


def test_each_input_bit_flips_half_of_the_slots_bits() -> None:
    """Of a port, the input with the least bits to work with: on average half of the 14 bits, each bit of each input."""
    bits = MANY_SLOTS.bit_length() - 1
    for bit in range(16):
        flips = [
            (slot(CLIENT, port, VIP, WEB, MANY_SLOTS) ^ slot(CLIENT, port ^ 1 << bit, VIP, WEB, MANY_SLOTS)).bit_count()
            for port in range(0, 65536, 64)
        ]
        assert abs(sum(flips) / len(flips) - bits / 2) < 0.5
