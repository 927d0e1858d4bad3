"""Real namespaces and wires: built, connected, removed without a trace. Needs root."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gale.errors import LabError
from gale.lab import netns, network, processes
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions
from gale.lab.store import Notes
from gale.lab.topology import OPERATOR_ADDRESS, Topology, is_lab_namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

PREFIX = f"gale-t{os.getpid()}"  # several test runs may share a machine
TIMEOUT_S = 5


def ours() -> list[str]:
    return [namespace for namespace in netns.existing() if is_lab_namespace(PREFIX, namespace)]


@pytest.fixture
def topology() -> Iterator[Topology]:
    made = Topology(PREFIX, 2, 2)
    try:
        network.build(made)
        yield made
    finally:
        network.remove(ours())


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The notes and the wires of a lab, without gale's programs."""
    made = Lab(PREFIX)
    made.down()
    options = LabOptions(load_balancers=1, nodes=1)
    try:
        made.store.create(Notes(options))
        network.build(options.topology(PREFIX))
        yield made
    finally:
        made.down()


def reaches(source: str, target: str, address: str | None) -> bool:
    """Whether a connection from one namespace arrives in another."""
    with netns.inside(target, lambda: socket.create_server((str(address), 99))) as server:
        try:
            client = netns.inside(source, lambda: socket.create_connection((str(address), 99), timeout=1))
        except OSError:
            return False
        with client:
            server.settimeout(TIMEOUT_S)
            server.accept()[0].close()
            return True


def test_client_reaches_load_balancers_and_these_reach_nodes_and_the_client_no_node(topology: Topology) -> None:
    client, (lb, other), node = topology.client, topology.lbs, topology.node_instances[1]
    assert reaches(client.namespace, lb.namespace, lb.public)
    assert reaches(lb.namespace, node.namespace, node.private)
    assert reaches(lb.namespace, other.namespace, other.private)
    assert reaches(lb.namespace, topology.switch_namespace, OPERATOR_ADDRESS)
    assert not reaches(client.namespace, node.namespace, node.private)


def test_kernel_routing_leads_from_the_client_to_the_nodes(topology: Topology) -> None:
    network.enable_kernel_routing(topology, topology.lbs[0])
    node = topology.node_instances[0]
    assert reaches(topology.client.namespace, node.namespace, node.private)


def test_the_namespace_of_the_machine_stays_as_it_was() -> None:
    def links() -> list[str]:
        return sorted(entry.name for entry in Path("/sys/class/net").iterdir())

    before, own = links(), Path("/proc/self/ns/net").stat().st_ino
    network.build(Topology(PREFIX, 1, 1))
    try:
        assert links() == before
        assert Path("/proc/self/ns/net").stat().st_ino == own
    finally:
        network.remove(ours())
    assert ours() == []


def test_a_namespace_that_is_there_is_not_taken(topology: Topology) -> None:
    with pytest.raises(LabError, match="is there already"):
        netns.create(topology.switch_namespace)


def test_down_ends_what_runs_in_the_namespaces_and_leaves_nothing(lab: Lab) -> None:
    sleep = [sys.executable, "-c", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"]
    stubborn = processes.spawn(f"{PREFIX}-client", sleep, lab.store.log("sleep"))
    entered = time.monotonic() + TIMEOUT_S
    while processes.in_namespaces([f"{PREFIX}-client"]) != [stubborn]:
        assert time.monotonic() < entered
    assert lab.down()
    assert not processes.alive(stubborn)
    assert ours() == []
    assert not lab.store.directory.exists()
    assert not lab.down()


def test_down_removes_a_lab_without_readable_notes(lab: Lab) -> None:
    (lab.store.directory / "lab.json").write_text("{half")
    assert lab.down()
    assert ours() == []


def test_a_second_lab_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="gale-lab down"):
        lab.up()


def test_a_command_runs_in_its_namespace_with_its_exit_code(lab: Lab) -> None:
    done = lab.run("client", [sys.executable, "-c", "import socket, sys; print(socket.if_nameindex()); sys.exit(7)"])
    assert done.returncode == 7
    assert "public" in done.stdout
    assert "private" not in done.stdout


def test_status_has_the_fields_of_the_manual(lab: Lab) -> None:
    client = lab.status()[-1]
    assert (client.name, client.namespace, client.running) == ("client", f"{PREFIX}-client", True)
    assert not lab.status()[0].running


def test_a_process_with_another_start_time_is_not_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as child:
        stranger = processes.Process(child.pid, 1)
        assert not processes.alive(stranger)
        processes.kill([stranger])
        assert child.poll() is None
        child.kill()
