"""Names, namespaces and addresses of a lab."""

import pytest

from gale.errors import ConfigError
from gale.lab.cluster import Lab
from gale.lab.topology import Role, Topology, UnknownInstanceError, is_lab_namespace


def test_every_instance_has_its_own_name_namespace_and_addresses() -> None:
    topology = Topology("gale", load_balancers=7, nodes=100)
    instances = topology.instances
    assert len(instances) == 108
    for values in (
        [i.name for i in instances],
        [i.namespace for i in instances],
        [i.public for i in instances if i.public],
        [i.private for i in instances if i.private],
    ):
        assert len(values) == len(set(values))
    assert topology.switch_namespace not in [i.namespace for i in instances]


def test_the_default_lab_is_the_one_of_the_manual() -> None:
    topology = Topology()
    assert [i.name for i in topology.instances] == ["lb-0", "lb-1", "lb-2", "node-0", "node-1", "node-2", "client"]
    assert topology.endpoints == ("10.77.1.10:8080", "10.77.1.11:8080", "10.77.1.12:8080")
    assert topology.api_servers == ("10.77.2.10:5555", "10.77.2.11:5555", "10.77.2.12:5555")
    assert topology.instance("node-1").namespace == "gale-node-1"
    assert topology.client.role is Role.CLIENT


@pytest.mark.parametrize("sizes", [(0, 3), (8, 3), (3, 0), (3, 101)])
def test_sizes_have_limits(sizes: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="a lab has 1 to"):
        Topology("gale", *sizes)


@pytest.mark.parametrize("prefix", ["", ".", "Gale", "a/b", "../../tmp", "-x", "x" * 22])
def test_prefixes_are_plain_words_wherever_they_come_in(prefix: str) -> None:
    for door in (Topology, Lab):
        with pytest.raises(ConfigError, match="prefix"):
            door(prefix)


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(UnknownInstanceError, match="there are lb-0, node-0, node-1, client") as raised:
        Topology("gale", 1, 2).instance("lb-1")
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("prefix", "namespace", "ours"),
    [
        ("gale", "gale-lb-0", True),
        ("gale", "gale-node-17", True),
        ("gale", "gale-client", True),
        ("gale", "gale-switch", True),
        ("gale", "gale-e2e-lb-0", False),
        ("gale-e2e", "gale-e2e-lb-0", True),
        ("gale", "gale-lb-", False),
        ("gale", "gale", False),
        ("gale", "other", False),
    ],
)
def test_only_names_that_a_lab_gives_are_taken_for_a_lab(prefix: str, namespace: str, ours: bool) -> None:
    assert is_lab_namespace(prefix, namespace) is ours
