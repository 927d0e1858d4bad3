"""The Debian package and the units in it, on machines that boot: installed, started, troubled, removed, purged.

One load balancer and one node, which are all the cluster there is. The node's service answers with its name.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.containers.base import make_base
from e2e.containers.machines import Machine, in_network, network
from e2e.waiting import until

pytestmark = pytest.mark.timeout(900)
EXPOSURE_MAX = 3.0
SERVES_WITHIN_S = 90.0
LB_TOML = """
[private_interface]
net_interface_private = "eth2"
node_port = 7070
api_port = 5555
load_balancer_port = 9090
[public_interface]
net_interface_public = "eth1"
clients_port = 8080
[node_health]
checks_before_routing = 3
checks_timeout = "2s"
black_list_after_fails = 5
black_list_expiry = "5m"
[load_balancer_quorum]
enforce_single_configuration = false
addresses = [{ ip = "192.168.56.10" }]
[forwarding]
mode = "l4"
target_port = 80
"""
NODE_TOML = 'load_balancer = { addresses = [{ ip = "192.168.56.10" }] }\n'
SERVICE = (
    "systemctl stop service 2>/dev/null; systemctl reset-failed service 2>/dev/null;"
    " systemd-run --quiet --unit=service /usr/lib/gale/bin/python3 -P -m gale.lab.server --name node-0 --port 80"
)


@pytest.fixture(scope="module")
def machines(package: Path) -> Iterator[dict[str, Machine]]:
    """Both with the package installed, configured and at work."""
    base = make_base()
    made = {name: Machine(name, number, base) for name, number in (("lb-0", 10), ("node-0", 20))}
    with network():
        try:
            for machine in made.values():
                machine.make()
                machine.boot()
            install(made, package)
            yield made
        finally:
            for machine in made.values():
                machine.destroy()


def install(machines: dict[str, Machine], package: Path) -> None:
    for machine in machines.values():
        shutil.copy(package, machine.root / "root")
        machine.run(f"apt-get install -y -q --no-install-recommends /root/{package.name}")
    lb, node = machines.values()
    lb.write("/etc/gale/lb.toml", LB_TOML)
    node.write("/etc/gale/node.toml", NODE_TOML)
    node.run(SERVICE)
    lb.run("systemctl start gale-lb")
    node.run("systemctl start gale-node")
    until(unanswered, SERVES_WITHIN_S)


@pytest.fixture
def lb(machines: dict[str, Machine]) -> Machine:
    return machines["lb-0"]


@pytest.fixture
def node(machines: dict[str, Machine]) -> Machine:
    return machines["node-0"]


def unanswered() -> str | None:
    """Why a client at the bridge gets no answer; None when it does."""
    asked = in_network("curl", "--silent", "--show-error", "--max-time", "1", "http://10.78.1.10:8080/")
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    return None if done.stdout.strip() == "node-0" else done.stdout + done.stderr


def shown(machine: Machine, unit: str, what: str) -> str:
    return machine.run(f"systemctl show --property={what} --value {unit}").strip()


@pytest.mark.parametrize(("name", "unit"), [("lb-0", "gale-lb"), ("node-0", "gale-node")])
def test_a_unit_runs_as_its_own_user_with_few_rights(machines: dict[str, Machine], name: str, unit: str) -> None:
    machine = machines[name]
    assert shown(machine, unit, "ActiveState") == "active"
    pid = shown(machine, unit, "MainPID")
    status = machine.run(f"cat /proc/{pid}/status; stat -c 'Owner: %U' /proc/{pid}")
    assert "Owner: gale" in status
    assert "NoNewPrivs:\t1" in status
    rights = int(re.search(r"CapEff:\s*(\w+)", status)[1], 16)  # type: ignore[index]
    assert not rights >> 21 & 1, "CAP_SYS_ADMIN"
    told = machine.run(f"systemd-analyze security --no-pager {unit} | tail -n 1")
    assert float(re.search(r"([\d.]+) (?:OK|SAFE)", told)[1]) <= EXPOSURE_MAX, told  # type: ignore[index]


def test_a_stuck_process_is_started_again_while_packets_flow(lb: Machine) -> None:
    before = shown(lb, "gale-lb", "NRestarts")
    pid = shown(lb, "gale-lb", "MainPID")
    lb.run(f"kill -STOP {pid}")
    began, failed = time.monotonic(), []
    while shown(lb, "gale-lb", "NRestarts") == before:
        assert time.monotonic() - began < 40, lb.run("systemctl status gale-lb", check=False)
        failed += [why for why in [unanswered()] if why]
    assert not failed
    until(lambda: None if shown(lb, "gale-lb", "ActiveState") == "active" else "not active", SERVES_WITHIN_S)
    assert "Watchdog timeout" in lb.run("journalctl --no-pager -u gale-lb")
    assert unanswered() is None


def test_a_reload_takes_what_can_be_taken_and_names_the_rest(lb: Machine) -> None:
    pid = shown(lb, "gale-lb", "MainPID")
    lb.write("/etc/gale/lb.toml", LB_TOML.replace("black_list_after_fails = 5", "black_list_after_fails = 7"))
    lb.run("systemctl reload gale-lb")
    until(lambda: None if "reloaded" in (now := shown(lb, "gale-lb", "StatusText")) else now, 10)
    lb.write("/etc/gale/lb.toml", LB_TOML.replace("5555", "5557"))
    lb.run("systemctl reload gale-lb")
    until(lambda: None if "api_port" in (now := shown(lb, "gale-lb", "StatusText")) else now, 10)
    lb.write("/etc/gale/lb.toml", LB_TOML.replace("= 5555", "= none"))
    refused = lb.run("systemctl reload gale-lb || echo refused", check=False)
    assert "refused" in refused
    assert shown(lb, "gale-lb", "MainPID") == pid
    lb.write("/etc/gale/lb.toml", LB_TOML)
    assert unanswered() is None


def test_a_machine_that_loses_power_comes_back_by_itself(lb: Machine) -> None:
    lb.cut()
    lb.boot()
    until(unanswered, SERVES_WITHIN_S)


def test_a_restart_loses_no_request(lb: Machine) -> None:
    lb.run("systemctl --no-block restart gale-lb")
    deadline, failed, asked = time.monotonic() + 10, [], 0
    while time.monotonic() < deadline:
        failed += [why for why in [unanswered()] if why]
        asked += 1
    assert not failed
    assert asked > 50
    assert shown(lb, "gale-lb", "ActiveState") == "active"


def test_what_an_operator_expects_is_installed(lb: Machine) -> None:
    assert "gale-ctl" in lb.run("cat /usr/share/bash-completion/completions/gale-ctl")
    for page in ("man1/gale-ctl.1", "man8/gale-lb.8", "man8/gale-node.8"):
        lb.run(f"test -s /usr/share/man/{page}.gz")
    dashboard = json.loads(lb.run("cat /usr/share/gale/monitoring/gale-dashboard.json"))
    assert dashboard["panels"]
    assert "alert: " in lb.run("cat /usr/share/gale/monitoring/gale-alerts.yml")
    status = json.loads(lb.run("gale-ctl cluster status -o json"))
    assert status["quorum"]
    lb.run("gale-lb --config /etc/gale/lb.toml.sample --check")


def test_removed_it_leaves_the_machine_as_it_was_and_comes_back(machines: dict[str, Machine], package: Path) -> None:
    try:
        for machine in reversed(machines.values()):
            machine.run("apt-get remove -y -q gale")
            assert "prog/xdp" not in machine.run("ip link")
            assert machine.run("test -e /etc/gale/*.toml && echo kept").strip() == "kept"
            machine.run("apt-get purge -y -q gale")
            places = "/etc/gale /var/lib/gale /var/cache/gale /usr/lib/gale /run/gale* /sys/fs/bpf/gale"
            assert machine.run(f"ls -d {places} 2>/dev/null; getent passwd gale", check=False) == ""
            assert "gale" not in machine.run("systemctl list-units --all --no-legend 'gale*'")
    finally:
        install(machines, package)
