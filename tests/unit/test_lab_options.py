"""The configuration files of a lab are files that gale accepts, and say what was asked for."""

from pathlib import Path
from typing import Any

import pytest
import tomli

from gale.config import TlsFiles, load_lb, load_node
from gale.errors import ConfigError
from gale.lab import certificates
from gale.lab.options import LabOptions, lb_toml, node_toml
from gale.lab.store import Notes
from gale.tls import Credentials


def test_a_load_balancer_gets_a_configuration_it_accepts(tmp_path: Path) -> None:
    options = LabOptions(checks_timeout="2s", black_list_after_fails=4, enforce_single_configuration=True)
    file = tmp_path / "lb-1.toml"
    file.write_text(lb_toml(options.topology("gale"), options, tmp_path / "state"))
    config = load_lb(file)
    assert config.quorum == ("10.77.2.10:9090", "10.77.2.11:9090", "10.77.2.12:9090")
    assert (config.public_interface, config.private_interface) == ("public", "private")
    assert config.state_directory == tmp_path / "state"
    assert config.enforces
    assert config.warnings == ()


def test_a_node_gets_a_configuration_it_accepts(tmp_path: Path) -> None:
    options = LabOptions(load_balancers=1)
    file = tmp_path / "node-0.toml"
    file.write_text(node_toml(options.topology("gale"), options, "node-0"))
    config = load_node(file)
    assert config.name == "node-0"
    assert config.load_balancers == ("10.77.2.10:7070",)


def test_everybody_in_a_lab_with_certificates_has_one_that_fits(tmp_path: Path) -> None:
    options = LabOptions(load_balancers=2, nodes=1)
    topology = options.topology("gale")
    certificates.issue_all(tmp_path, topology)
    held = {}
    for stem in ("lb-0", "lb-1", "node-0", "operator"):
        files = certificates.files(tmp_path, stem)
        held[stem] = str(Credentials(Path(files["ca"]), Path(files["cert"]), Path(files["key"])).who)
    assert held == {
        "lb-0": "lb 10.77.2.10",
        "lb-1": "lb 10.77.2.11",
        "node-0": "node node-0",
        "operator": "operator operator",
    }
    file = tmp_path / "node-0.toml"
    file.write_text(node_toml(topology, options, "node-0") + certificates.toml(tmp_path, "node-0"))
    assert load_node(file).tls == TlsFiles(tmp_path / "ca.crt", tmp_path / "node-0.crt", tmp_path / "node-0.key")


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"modes": ("l5",)}, "at most once"),
        ({"modes": ("l2", "l2")}, "at most once"),
        ({"modes": ()}, "at least one"),
        ({"modes": ("l2",), "subnets": True}, "its own wire only"),
        ({"modes": ("l2",), "one_arm": True}, "virtual"),
        ({"modes": ("l3",), "tunnel": "gre"}, "tunnel"),
        ({"modes": ("l3",), "tunnel": "ipv6"}, "needs IPv6"),
        ({"far_mtu": 1279}, "1280"),
        ({"nodes_mtu": 1501}, "1500"),
    ],
)
def test_what_cannot_be_built_is_refused(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        LabOptions(**asked)


EVERYTHING = LabOptions(
    modes=("l4", "l2", "l3"), tunnel="ipv6", ipv6=True, udp=True, virtual=True, iperf=True, flows=4096
)


def test_every_mode_has_its_services_and_its_own_ports(tmp_path: Path) -> None:
    text = lb_toml(EVERYTHING.topology("gale"), EVERYTHING, tmp_path / "state")
    read = tomli.loads(text)
    addresses = [f"{net}{10 + i}" for i in range(3) for net in ("10.77.9.", "fd77:9::")]
    assert read["public_interface"] == {
        "clients_port": 8080,
        "net_interface_public": "public",
        "virtual_addresses": addresses,
    }
    both = {"protocols": ["tcp", "udp"]}
    assert read["forwarding"] == {"mode": "l4", "target_port": 80, "flows": 4096, "learning_time": "3s", **both}
    services = {service.pop("name"): service for service in read["service"]}
    assert all(service.pop("addresses") == addresses for service in services.values())
    assert services == {
        "l2": {"port": 8082, "mode": "l2", **both},
        "l3": {"port": 8083, "mode": "l3", "tunnel": "ipv6", **both},
        "iperf-l4": {"port": 5204, "mode": "l4", **both},
        "iperf-l2": {"port": 5202, "mode": "l2", **both},
        "iperf-l3": {"port": 5203, "mode": "l3", "tunnel": "ipv6", **both},
    }


def test_only_one_node_stands_behind_iperf3() -> None:
    topology = EVERYTHING.topology("gale")
    one, other = (tomli.loads(node_toml(topology, EVERYTHING, name))["node"] for name in ("node-0", "node-1"))
    assert one == {"name": "node-0", "drain_timeout": "0s"}
    assert other == {"name": "node-1", "drain_timeout": "0s", "services": ["default", "l2", "l3"]}


def test_one_arm_is_one_interface(tmp_path: Path) -> None:
    options = LabOptions(modes=("l2",), one_arm=True, virtual=True)
    read = tomli.loads(lb_toml(options.topology("gale"), options, tmp_path / "state"))
    assert read["public_interface"]["net_interface_public"] == read["private_interface"]["net_interface_private"]
    assert read["forwarding"] == {"mode": "l2", "learning_time": "3s"}


def test_notes_keep_what_was_asked_for() -> None:
    assert Notes.from_json(Notes(EVERYTHING).to_json()).options == EVERYTHING


def test_only_members_are_in_the_list(tmp_path: Path) -> None:
    options = LabOptions(load_balancers=5, members=3)
    topology = options.topology("gale")
    file = tmp_path / "some.toml"
    file.write_text(lb_toml(topology, options, tmp_path / "state"))
    assert load_lb(file).quorum == ("10.77.2.10:9090", "10.77.2.11:9090", "10.77.2.12:9090")
    others = [topology.instance(name) for name in ("lb-0", "lb-4")]
    file.write_text(lb_toml(topology, options, tmp_path / "state", others))
    assert load_lb(file).quorum == ("10.77.2.10:9090", "10.77.2.14:9090")
    file.write_text(node_toml(topology, options, "node-0", others))
    assert load_node(file).load_balancers == ("10.77.2.10:7070", "10.77.2.14:7070")


@pytest.mark.parametrize("members", [0, 4])
def test_a_list_is_neither_empty_nor_longer_than_the_lab(members: int) -> None:
    with pytest.raises(ConfigError, match="members"):
        LabOptions(load_balancers=3, members=members)
