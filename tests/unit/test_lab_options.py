"""The configuration files of a lab are files that gale accepts, and say what was asked for."""

from pathlib import Path

import pytest

from gale.config import TlsFiles, load_lb, load_node
from gale.errors import ConfigError
from gale.lab import certificates
from gale.lab.options import LabOptions, lb_toml, node_toml
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


def test_modes_that_are_not_there_yet_are_refused() -> None:
    with pytest.raises(ConfigError, match='"l4" only'):
        LabOptions(mode="l2")


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
