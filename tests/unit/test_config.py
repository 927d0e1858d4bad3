"""Configuration: what loads, and what is refused with which words."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gale.cli.lb import main as gale_lb
from gale.cli.node import main as gale_node
from gale.config import TlsFiles, load_lb, load_node
from gale.core.probes import CommandProbe, HttpProbe, Probe, TcpProbe
from gale.core.shared import Service
from gale.errors import ConfigError
from gale.pki import issue, make_ca, write
from gale.tls import Identity, Role

SAMPLES = Path(__file__).parent / "samples"
SHIPPED = Path(__file__).parents[2] / "cmd"
LB = """
[private_interface]
net_interface_private = "eth0"
[public_interface]
net_interface_public = "eth1"
[load_balancer_quorum]
addresses = [{ ip = "192.168.1.2" }, { ip = "192.168.1.3" }, { ip = "192.168.1.4" }]
"""
NODE = '[load_balancer]\naddresses = [{ ip = "192.168.1.2" }]\n'


def written(path: Path, text: str) -> Path:
    file = path / "lb.toml"
    file.write_text(text)
    return file


def test_the_samples_the_project_started_from_load_as_they_stand() -> None:
    lb = load_lb(SAMPLES / "lb.toml")
    assert lb.quorum == ("192.168.1.2:8081", "192.168.1.3:8081", "192.168.1.4:8081")
    assert (lb.shared.health.black_list_after_fails, lb.shared.health.black_list_expiry_ms) == (5, 300_000)
    assert [warning for warning in lb.warnings if "8081" in warning]
    assert load_node(SAMPLES / "node.toml").load_balancers == (
        "192.168.1.2:8082",
        "192.168.1.3:8082",
        "192.168.1.4:8082",
    )


def test_the_shipped_files_load_without_a_warning() -> None:
    assert load_lb(SHIPPED / "lb.toml").warnings == ()
    assert len(load_node(SHIPPED / "node.toml").load_balancers) == 3


def test_defaults(tmp_path: Path) -> None:
    lb = load_lb(written(tmp_path, LB))
    assert (lb.node_port, lb.api_port, lb.quorum[0]) == (7070, 5555, "192.168.1.2:9090")
    health = lb.shared.health
    assert (health.checks_before_routing, health.checks_timeout_ms) == (3, 5_000)
    assert (health.black_list_after_fails, health.black_list_expiry_ms) == (-1, 60_000)
    (service,) = lb.shared.services
    assert (service.port, service.target_port, service.mode, service.protocols) == (8080, 8080, "l4", ("tcp",))


def test_what_is_shown_of_a_file_names_no_key_file(tmp_path: Path) -> None:
    """A new key of lb.toml is in this list once somebody has thought about whether it may be shown."""
    tls = '[tls]\nca = "/ca.crt"\ncert = "/lb.crt"\nkey = "/lb.key"\n'
    lb = load_lb(written(tmp_path, LB + tls))
    assert dict(lb.own) == {
        "forwarding.flows": "262144",
        "forwarding.learning_time": "60000ms",
        "load_balancer_quorum.addresses": "192.168.1.2:9090, 192.168.1.3:9090, 192.168.1.4:9090",
        "load_balancer_quorum.enforce_single_configuration": "false",
        "private_interface.api_port": "5555",
        "private_interface.load_balancer_port": "9090",
        "private_interface.net_interface_private": "eth0",
        "private_interface.node_port": "7070",
        "public_interface.net_interface_public": "eth1",
        "state.directory": "/var/lib/gale",
        "tls.ca": "/ca.crt",
        "tls.cert": "/lb.crt",
        "web.address": "loopback",
        "web.port": "5556",
        "api.socket": "/run/gale/lb.sock",
    }


@pytest.mark.parametrize("address", ["off", "loopback", "private", "10.9.0.2"])
def test_where_it_is_shown(tmp_path: Path, address: str) -> None:
    lb = load_lb(written(tmp_path, f'{LB}[web]\naddress = "{address}"\nport = 9100\n'))
    assert (lb.web_address, lb.web_port) == (address, 9_100)
    assert (load_lb(written(tmp_path, LB)).web_address, load_lb(written(tmp_path, LB)).web_port) == ("loopback", 5_556)
    assert load_lb(written(tmp_path, LB.replace("[public", '[web]\naddress = "off"\nport = 9090\n[public')))


def test_services_of_every_kind_side_by_side(tmp_path: Path) -> None:
    text = """
[forwarding]
mode = "l3"
tunnel = "ipv6"
flows = 1048576
[[service]]
name = "dns"
port = 53
addresses = ["2001:DB8::53", "203.0.113.53"]
protocols = ["udp", "tcp"]
mode = "l2"
[[service]]
name = "mail"
port = 53
addresses = ["203.0.113.25"]
target_port = 2525
[[service]]
name = "other"
port = 8080
protocols = ["udp"]
"""
    lb = load_lb(written(tmp_path, LB + text))
    assert lb.flows == 1 << 20
    assert lb.shared.services == (
        Service("default", 8080, 8080, (), ("tcp",), "l3", "ipv6"),
        Service("dns", 53, 53, ("2001:db8::53", "203.0.113.53"), ("tcp", "udp"), "l2"),
        Service("mail", 53, 2525, ("203.0.113.25",)),
        Service("other", 8080, 8080, (), ("udp",)),
    )


def test_one_interface_may_be_both_sides(tmp_path: Path) -> None:
    lb = load_lb(written(tmp_path, LB.replace("eth1", "eth0")))
    assert lb.public_interface == lb.private_interface == "eth0"
    udp = LB.replace("eth1", 'eth0"\nclients_port = 9090 # "') + '[forwarding]\nprotocols = ["udp"]\n'
    assert load_lb(written(tmp_path, udp)).shared.services[0].port == 9090


def test_a_hash_outlives_an_upgrade(tmp_path: Path) -> None:
    """What a gale before modes and tunnels hashed still has its hash: an upgrade begins with one load balancer, and
    with enforcement the others would ignore it."""
    assert load_lb(written(tmp_path, LB)).shared.hash == "2360eaf2fd8cc108"


def test_order_and_spelling_of_a_service_do_not_matter(tmp_path: Path) -> None:
    def hashed(addresses: str, protocols: str) -> str:
        text = f"{LB}[[service]]\nname = 'a'\nport = 1\naddresses = {addresses}\nprotocols = {protocols}\n"
        return load_lb(written(tmp_path, text)).shared.hash

    first = hashed("['2001:db8::1', '10.0.0.1']", "['tcp', 'udp']")
    assert hashed("['10.0.0.1', '2001:DB8:0:0::1']", "['udp', 'tcp']") == first
    assert hashed("['10.0.0.1']", "['udp', 'tcp']") != first


@pytest.mark.parametrize(
    "change", ['mode = "l2"', 'mode = "l3"', 'mode = "l3"\ntunnel = "ipv6"', 'protocols = ["udp"]']
)
def test_the_hash_covers_how_a_service_forwards(tmp_path: Path, change: str) -> None:
    plain = load_lb(written(tmp_path, LB)).shared.hash
    assert load_lb(written(tmp_path, f"{LB}[forwarding]\n{change}\n")).shared.hash != plain
    default = load_lb(written(tmp_path, f'{LB}[forwarding]\nmode = "l3"\ntunnel = "ipv4"\n')).shared.hash
    assert default == load_lb(written(tmp_path, f'{LB}[forwarding]\nmode = "l3"\n')).shared.hash


def test_the_hash_covers_what_must_agree_and_nothing_else(tmp_path: Path) -> None:
    plain = load_lb(written(tmp_path, LB)).shared.hash
    spelled = LB + '[node_health]\nchecks_timeout = "5000ms" # the default, in other words\n'
    assert load_lb(written(tmp_path, spelled)).shared.hash == plain
    assert load_lb(written(tmp_path, LB.replace("eth0", "ens3"))).shared.hash == plain
    assert load_lb(written(tmp_path, LB + '[node_health]\nchecks_timeout = "6s"\n')).shared.hash != plain
    assert load_lb(written(tmp_path, LB + "[forwarding]\ntarget_port = 80\n")).shared.hash != plain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("[node_health]\nchecks_timeout = '5x'", 'node_health.checks_timeout = "5x": not a duration; write e.g. "5s"'),
        ("[node_health]\nchecks_timeout = '999ms'", 'node_health.checks_timeout = "999ms": the least is "1s"'),
        ("[node_health]\nchecks_timeout = 5", "node_health.checks_timeout = 5: not a duration"),
        ("[node_health]\nchecks_before_routing = 0", "node_health.checks_before_routing = 0: expected `int` >= 1"),
        ("[node_health]\nblack_list_after_fails = 0", "node_health.black_list_after_fails = 0: would ban"),
        ("[node_health]\ncheck_timeout = '5s'", "node_health.check_timeout: unknown key"),
        ("[nodehealth]", "nodehealth: unknown key"),
        ("[forwarding]\nmode = 'l9'", 'forwarding.mode = "l9": must be "l2", "l3" or "l4"'),
        ("[forwarding]\nprotocols = []", 'forwarding.protocols = []: must be ["tcp"], ["udp"] or both'),
        ("[forwarding]\nprotocols = ['sctp']", 'forwarding.protocols = ["sctp"]: must be ["tcp"]'),
        ("[forwarding]\nprotocols = ['udp', 'udp']", 'forwarding.protocols = ["udp","udp"]: lists one twice'),
        ("[forwarding]\nmode = 'l2'\ntarget_port = 80", "forwarding.target_port = 80: l2 leaves ports as they are"),
        ("[forwarding]\nmode = 'l3'\ntarget_port = 8080", "target_port = 8080: l3 leaves ports as they are"),
        ("[forwarding]\ntunnel = 'ipv4'", 'forwarding.tunnel = "ipv4": l4 has no tunnel: leave it out'),
        ("[forwarding]\nmode = 'l3'\ntunnel = 'gre'", 'forwarding.tunnel = "gre": must be "ipv4" or "ipv6"'),
        ("[forwarding]\nflows = 1000000", "forwarding.flows = 1000000: must be a power of two"),
        ('[forwarding]\nlearning_time = "1h"', 'forwarding.learning_time = "3600000ms": the most is "10m"'),
        ("[forwarding]\nflows = 512", "forwarding.flows = 512: expected `int` >= 1024"),
        ("[forwarding]\ntarget_port = 70000", "forwarding.target_port = 70000: expected `int` <= 65535"),
        ("[forwarding]\ntarget_port = true", "forwarding.target_port = true: expected `int | null`, got `bool`"),
        ("[[service]]\nname = 'a'\nport = 8080", "service[0].port = 8080: another service has this port"),
        ("[[service]]\nname = 'default'\nport = 1", 'service[0].name = "default": is the name of another service'),
        ("[[service]]\nname = 'a b'\nport = 1", 'service[0].name = "a b": expected `str` matching'),
        ("[[service]]\nport = 1", "service[0].name: missing"),
        ("[[service]]\nname = 'a'\nport = 1\naddresses = ['x']", 'service[0].addresses[0] = "x": not an IP address'),
        ("[[service]]\nname = 'a'\nport = 1\naddresses = [7]", "service[0].addresses[0] = 7: not an IP address"),
        ("[[service]]\nname = 'a'\nport = 1\naddresses = ['::ffff:1.2.3.4']", "no IPv4 address in disguise"),
        ("[[service]]\nname = 'a'\nport = 1\naddresses = ['fe80::1%eth0']", "without a zone"),
        ("[[service]]\nname = 'a'\nport = 1\naddresses = ['fe80::1']", "clients cannot connect to such an address"),
        ("[[service]]\nname = 'a'\nport = 1\naddresses = ['0.0.0.0']", "clients cannot connect to such an address"),
        ("[[service]]\nname = 'a'\nport = 1\naddresses = ['224.0.0.1']", "clients cannot connect to such an address"),
        (
            "[[service]]\nname = 'a'\nport = 1\naddresses = ['2001:db8::1', '2001:DB8:0::1']",
            'service[0].addresses = ["2001:db8::1","2001:db8::1"]: lists one twice',
        ),
        (
            "[[service]]\nname = 'a'\nport = 1\naddresses = ['10.0.0.1']\nprotocols = ['tcp', 'udp']\n"
            "[[service]]\nname = 'b'\nport = 1\naddresses = ['10.0.0.2', '10.0.0.1']\nprotocols = ['udp']",
            "service[1].port = 1: another service has this port and address (10.0.0.1 1 udp): a",
        ),
        (
            "[[service]]\nname = 'a'\nport = 5555\naddresses = ['192.168.1.3']",
            "service[0].port = 5555: load balancers themselves listen there (192.168.1.3 5555 tcp)",
        ),
        (
            "".join(f"[[service]]\nname = 's{port}'\nport = {port}\n" for port in range(10_000, 10_255)),
            "with it there are 256 addresses, ports and protocols: 255 are the most",
        ),
        ("[tls]\nca = 'ca.crt'\ncert = 'lb.crt'", "tls.key: missing"),
        ("[tls]\nca = 'ca.crt'\ncert = ''\nkey = 'lb.key'", 'tls.cert = "": not a path; write e.g. "/etc/gale'),
        ("[tls]\nca = 1\ncert = 'lb.crt'\nkey = 'lb.key'", "tls.ca = 1: not a path"),
        ("[tls]\ncafile = 'ca.crt'", "tls.cafile: unknown key"),
        ("[", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_value_and_rule(tmp_path: Path, change: str, words: str) -> None:
    file = written(tmp_path, LB + change + "\n")
    with pytest.raises(ConfigError) as refusal:
        load_lb(file)
    assert str(refusal.value).startswith(f"{file}: ")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            "eth1",
            'eth0"\nclients_port = 9090 # "',
            "public_interface.clients_port = 9090: load balancers themselves listen there (own",
        ),
        ('net_interface_public = "eth1"', "", "public_interface.net_interface_public: missing"),
        ("192.168.1.3", "192.168.1.2", "lists an address twice"),
        (
            'net_interface_public = "eth1"\n',
            'net_interface_public = "eth0"\n[forwarding]\nmode = "l2"\n',
            "public_interface.virtual_addresses = []: own is a load balancer's private address",
        ),
        (
            'net_interface_public = "eth1"\n',
            'net_interface_public = "eth1"\nvirtual_addresses = ["192.168.1.4"]\n[forwarding]\nmode = "l3"\n',
            "192.168.1.4 is a load balancer's private address, and in l3 nodes take it too",
        ),
        ("192.168.1.3", "lb2.example.org", "load_balancer_quorum.addresses[1].ip = "),
        (
            'net_interface_private = "eth0"',
            'net_interface_private = "eth0"\nnode_port = 9090',
            "load_balancer_port as well",
        ),
        (
            "[public_interface]",
            "[web]\nport = 7070\n[public_interface]",
            "node_port = 7070: is web.port as well",
        ),
        (
            "[public_interface]",
            '[web]\naddress = "0.0.0.0"\n[public_interface]',
            'web.address = "0.0.0.0": must be "off"',
        ),
        (
            'net_interface_public = "eth1"\n',
            'net_interface_public = "eth1"\nvirtual_addresses = ["192.168.1.4"]\n'
            'clients_port = 5556\n[web]\naddress = "private"\n',
            "load balancers themselves listen there (192.168.1.4 5556 tcp)",
        ),
    ],
)
def test_impossible_combinations_are_refused(tmp_path: Path, before: str, after: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"lb\.toml: ") as refusal:
        load_lb(written(tmp_path, LB.replace(before, after)))
    assert words in str(refusal.value)


@pytest.mark.parametrize(("load", "rest"), [(load_lb, LB), (load_node, NODE)])
def test_certificates_are_three_files_or_none(tmp_path: Path, load: Callable[[Path], Any], rest: str) -> None:
    assert load(written(tmp_path, rest)).tls is None
    tls = '[tls]\nca = "/etc/gale/ca.crt"\ncert = "/etc/gale/own.crt"\nkey = "/etc/gale/own.key"\n'
    expected = TlsFiles(Path("/etc/gale/ca.crt"), Path("/etc/gale/own.crt"), Path("/etc/gale/own.key"))
    assert load(written(tmp_path, rest + tls)).tls == expected


@pytest.mark.parametrize(
    ("who", "certificate", "words"),
    [
        ("lb", "lb 192.168.1.3", "right; hash"),
        ("lb", "lb 192.168.1.9", "is for lb 192.168.1.9, and this is lb 192.168.1.2 or lb 192.168.1.3"),
        ("lb", "operator anna", "is for operator anna, and this is lb 192.168.1.2 or"),
        ("node", "node web-1", "right; node web-1"),
        ("node", "node web-2", "is for node web-2, and this is node web-1: gale-ctl tls issue makes one"),
        ("node", "lb 192.168.1.2", "is for lb 192.168.1.2, and this is node web-1"),
        ("node", "", "own.crt: cannot be read: No such file"),
    ],
)
def test_check_reads_the_certificates_too(tmp_path: Path, who: str, certificate: str, words: str) -> None:
    ca = make_ca(datetime.now(UTC))
    write(tmp_path, "ca", ca)
    if certificate:
        role, name = certificate.split()
        write(tmp_path, "own", issue(ca, Identity(Role(role), name), datetime.now(UTC)))
    tls = f'[tls]\nca = "{tmp_path}/ca.crt"\ncert = "{tmp_path}/own.crt"\nkey = "{tmp_path}/own.key"\n'
    file = written(tmp_path, (LB if who == "lb" else NODE + '[node]\nname = "web-1"\n') + tls)
    told = CliRunner().invoke(gale_lb if who == "lb" else gale_node, ["--config", str(file), "--check"])
    assert words in told.output
    assert (told.exit_code == 0) is ("right" in words)


def test_a_node_needs_an_address_for_each_load_balancer(tmp_path: Path) -> None:
    assert load_node(written(tmp_path, NODE)).weight == 1
    for wrong in ("{ port = 1 }", '{ ip = "10.0.0.1", hostname = "lb" }'):
        with pytest.raises(ConfigError, match="needs either ip or hostname"):
            load_node(written(tmp_path, f"[load_balancer]\naddresses = [{wrong}]\n"))


def test_a_node_shows_itself_only_where_it_is_told_to(tmp_path: Path) -> None:
    node = load_node(written(tmp_path, NODE))
    assert (node.web_address, node.web_port) == ("off", 5557)
    assert load_node(written(tmp_path, NODE + '[web]\naddress = "private"\n')).web_address == "private"
    with pytest.raises(ConfigError, match=r'web.address = "0.0.0.0": must be "off", "loopback"'):
        load_node(written(tmp_path, NODE + '[web]\naddress = "0.0.0.0"\n'))


def test_a_nodes_ipv6_address(tmp_path: Path) -> None:
    assert load_node(written(tmp_path, NODE)).address6 == ""
    table = '[node]\naddress6 = "{}"\n'
    assert load_node(written(tmp_path, NODE + table.format("2001:DB8:0::11"))).address6 == "2001:db8::11"
    for wrong in ("", "10.0.0.1", "::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1", "::"):
        with pytest.raises(ConfigError, match=f'node.address6 = "{wrong}": '):
            load_node(written(tmp_path, NODE + table.format(wrong)))


def test_undoing_needs_no_configuration_and_all_else_does() -> None:
    told = CliRunner().invoke(gale_node, [])
    assert told.exit_code == 2
    assert "--config is missing" in told.output


@pytest.mark.parametrize(
    ("table", "probe"),
    [
        ("", None),
        ("[health]\ntcp = 80", TcpProbe(80)),
        ('[health]\nhttp = "http://127.0.0.1/well"', HttpProbe("http://127.0.0.1/well")),
        ('[health]\ncommand = ["/bin/true"]', CommandProbe(("/bin/true",))),
    ],
)
def test_how_a_node_probes_its_service(tmp_path: Path, table: str, probe: Probe | None) -> None:
    assert load_node(written(tmp_path, NODE + table)).probe == probe


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('tcp = 80\nhttp = "http://127.0.0.1"', "choose one of tcp, http and command"),
        ('http = "ftp://127.0.0.1"', "health.http = "),
        ('http = "http://[::1/x"', "health.http = "),
        ('http = "http://127.0.0.1:port/"', "health.http = "),
        ('http = "http://a b/"', "health.http = "),
        ('timeout = "5ms"', 'health.timeout = "5ms": the least is "100ms"'),
    ],
)
def test_a_probe_that_cannot_be_is_refused(tmp_path: Path, table: str, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_node(written(tmp_path, f"{NODE}[health]\n{table}\n"))
    assert words in str(refusal.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_lb(tmp_path / "none.toml")
