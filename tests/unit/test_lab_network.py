"""Real namespaces and wires: built, connected, removed without a trace. Needs root."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from gale.errors import LabError
from gale.lab import netns, network, pins, processes
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions
from gale.lab.store import Notes
from gale.lab.topology import OPERATOR_ADDRESS, Layout, Topology, is_lab_namespace
from gale.prepare.memory import Memory
from gale.prepare.plan import Address

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
    family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
    with netns.inside(target, lambda: socket.create_server((str(address), 99), family=family)) as server:
        try:
            client = netns.inside(source, lambda: socket.create_connection((str(address), 99), timeout=TIMEOUT_S))
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


def arrives(source: str, target: str, address: str | None) -> bool:
    """Whether one of some datagrams from one namespace arrives in another: the way back is another matter, and the
    first may be lost while neighbours of a network that was just built look for each other."""
    family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
    with (
        netns.inside(target, lambda: socket.socket(family, socket.SOCK_DGRAM)) as ear,
        netns.inside(source, lambda: socket.socket(family, socket.SOCK_DGRAM)) as mouth,
    ):
        ear.bind((str(address), 99))
        ear.settimeout(0.2)
        for _ in range(round(TIMEOUT_S / 0.2)):
            mouth.sendto(b"hello", (str(address), 99))
            with suppress(TimeoutError):
                return ear.recv(99) == b"hello"
    return False


@contextmanager
def built(layout: Layout) -> Iterator[Topology]:
    made = Topology(PREFIX, 1, 1, layout)
    try:
        network.build(made)
        yield made
    finally:
        network.remove(ours())


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("layout", "ways"),
    [
        (Layout(ipv6=True, direct=True, far_mtu=1300), "client>lb lb>node node>client far>lb node>far client>far"),
        (Layout(ipv6=True, far_mtu=1300, virtual=True), "client>lb lb>node far>lb"),
        (Layout(ipv6=True, direct=True, one_arm=True, far_mtu=1300), "client>lb lb>node node>client far>lb node>far"),
        (Layout(ipv6=True, direct=True, subnets=True, far_mtu=1300), "client>lb lb>node node>client far>lb node>far"),
        (Layout(ipv6=True, subnets=True, one_arm=True), "client>lb lb>node node>client"),
    ],
)
def test_every_layout_connects_who_must_speak(layout: Layout, ways: str, version: int) -> None:
    with built(layout) as topology:
        names = {"lb": topology.lbs[0], "node": topology.node_instances[0], "client": topology.client}
        names |= {instance.name: instance for instance in topology.others}
        for way in ways.split():
            source, target = (names[name] for name in way.split(">"))
            address = target.links[0].address(version)
            if way == "lb>node":
                address = str(target.address("private", version))
            assert arrives(source.namespace, target.namespace, address), way


def test_a_virtual_address_is_reached_through_its_load_balancer_and_through_another_when_it_moves() -> None:
    layout = Layout(virtual=True, ipv6=True)
    made = Topology(PREFIX, 2, 1, layout)
    one, other = made.lbs
    try:
        network.build(made)
        for version, served in one.serves:
            for lb in (one, other, one):
                netns.inside(made.client.namespace, partial(network.set_routes, [made.way_to(one, lb, version)]))
                assert reaches(made.client.namespace, lb.namespace, served)
    finally:
        network.remove(ours())


def test_what_load_balancers_of_a_lab_pinned_is_removed_with_it_and_nothing_else(
    topology: Topology, tmp_path: Path
) -> None:
    numbers = [netns.path(namespace).stat().st_ino for namespace in topology.namespaces]
    number, foreign = netns.path(topology.lbs[0].namespace).stat().st_ino, max(numbers) + 1
    for name in (f"public-{number}", f"a-b-{number}", f"public-{foreign}", "public", f"{number}"):
        (tmp_path / name).mkdir()
    found = pins.folders(topology.namespaces, tmp_path)
    assert {folder.name for folder in found} == {f"public-{number}", f"a-b-{number}"}


def test_what_a_node_of_a_lab_remembers_is_where_gale_node_writes_it(topology: Topology) -> None:
    namespace = topology.node_instances[0].namespace
    memory = netns.inside(namespace, Memory)
    assert memory.read() == ()
    netns.inside(namespace, partial(memory.write, (Address("10.77.1.10"),)))
    assert pins.memory_of(namespace).exists()
    pins.remove([namespace, "gale-is-not-there"])
    assert not pins.memory_of(namespace).exists()


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
