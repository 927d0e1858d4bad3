"""Copies of table entries (bpf/copy.h): they serve what the tables hold, and not for long once they do not."""

from tests.packet.balancer import Balancer, on_one_cpu
from tests.packet.packets import NEIGHBOUR, SPORT, from_client, from_node, to_client, to_node


def test_a_copy_of_a_flow_serves_until_it_expires(balancer: Balancer) -> None:
    with on_one_cpu():
        balancer.public(from_client("S"))
        balancer.public(from_client("A"))
        balancer.forget("flows")
        balancer.public(from_client("A")).must_be("forwarded", to_node("A"))
        balancer.age_copies("flow_copies")
        balancer.public(from_client("A")).must_be("no_flow", from_client("A"))


def test_a_copy_of_a_return_path_serves_until_it_expires(balancer: Balancer) -> None:
    with on_one_cpu():
        balancer.public(from_client("S"))
        balancer.private(from_node("A"))
        balancer.forget("returns")
        balancer.private(from_node("A")).must_be("returned", to_client("A"))
        balancer.age_copies("answer_copies")
        balancer.private(from_node("A")).must_be("not_a_reply", from_node("A"))


def test_the_ends_of_a_connection_are_not_served_by_a_copy(balancer: Balancer) -> None:
    with on_one_cpu():
        balancer.public(from_client("S"))
        balancer.public(from_client("A"))
        balancer.private(from_node("A"))
        balancer.forget("flows")
        balancer.forget("returns")
        for flags in ("FA", "R"):
            balancer.public(from_client(flags)).must_be("no_flow", from_client(flags))
            balancer.private(from_node(flags)).must_be("not_a_reply", from_node(flags))


def test_the_first_answer_to_a_new_flow_replaces_the_old_ones_copy(balancer: Balancer) -> None:
    with on_one_cpu():
        balancer.public(from_client("S"))
        balancer.private(from_node("A")).must_be("returned", to_client("A"))
        balancer.forget("returns")
        balancer.public(from_client("S", client=NEIGHBOUR)).must_be("opened", to_node("S"))
        for flags in ("SA", "A"):
            balancer.private(from_node(flags)).must_be("returned", to_client(flags, client=NEIGHBOUR))


def test_flows_that_share_a_place_are_told_apart(balancer: Balancer) -> None:
    """Of 500 flows in 32,768 places, some share one: they take it from each other, and nothing else."""
    clients = [(f"203.0.113.{number}", SPORT + number) for number in range(1, 251)] * 2
    with on_one_cpu():
        for client, port in clients[:250]:
            balancer.public(from_client("S", client=client, sport=port))
        for client, port in clients:
            balancer.public(from_client(client=client, sport=port)).must_be("forwarded", to_node(sport=port))
