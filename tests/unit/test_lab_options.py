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
    file = tmp_path / "node-0.toml"
    file.write_text(node_toml(LabOptions(load_balancers=1).topology("gale"), "node-0"))
    config = load_node(file)
    assert config.name == "node-0"
    assert config.load_balancers == ("10.77.2.10:7070",)


def test_everybody_in_a_lab_with_certificates_has_one_that_fits(tmp_path: Path) -> None:
    topology = LabOptions(load_balancers=2, nodes=1).topology("gale")
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
    file.write_text(node_toml(topology, "node-0") + certificates.toml(tmp_path, "node-0"))
    assert load_node(file).tls == TlsFiles(tmp_path / "ca.crt", tmp_path / "node-0.crt", tmp_path / "node-0.key")


def test_modes_that_are_not_there_yet_are_refused() -> None:
    with pytest.raises(ConfigError, match='"l4" only'):
        LabOptions(mode="l2")
