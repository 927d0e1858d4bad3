"""The real gale-node as a process on a node's machine, started, stopped, killed and refused; outside, a load balancer
that tells what it listens for and keeps what it hears."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import grpc
import pytest

from gale.core.shared import HealthPolicy
from gale.core.state import NodeInfo
from gale.dataplane.known import OWN
from gale.dataplane.namespace import cookie
from gale.dataplane.pins import Pins
from gale.dataplane.settings import Listener
from gale.ports import Standing
from gale.prepare.memory import RUN
from gale.rpc.node_service import NodeService
from gale.rpc.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from tests.packet import needs
from tests.packet.machine import LB, LB6, NODE6, Net, machine
from tests.packet.network import eventually, namespace

ROOT = Path(__file__).parents[2]
VIP, VIP6, PORT, NODE_PORT = "10.0.0.80", "fd00::80", 20080, 20070
START_S = 20

pytestmark = needs.NAMESPACES


class Gate:
    """Takes every check, and remembers the last."""

    def __init__(self) -> None:
        self.last: tuple[bool, str] | None = None
        self.address6 = ""
        self.services: frozenset[str] = frozenset()
        self.said_goodbye = False

    def policy(self) -> HealthPolicy:
        return HealthPolicy(3, 1_000)

    def check(self, info: NodeInfo, serving: bool, reason: str = "") -> Standing:
        self.last, self.address6, self.services = (serving, reason), info.address6, frozenset(info.services)
        if info.leaving:
            return Standing("draining", flows=0)
        return Standing("routing" if serving else "failed")

    async def goodbye(self, info: NodeInfo) -> Standing:
        self.said_goodbye = True
        return Standing("left")

    @property
    def serving(self) -> bool:
        return self.last == (True, "")

    def refused(self, reason: str) -> bool:
        return self.last is not None and not self.last[0] and reason in self.last[1]


def listeners(mode: str) -> list[Listener]:
    return [Listener("web", address, PORT, "tcp", PORT, mode, 4) for address in (VIP, VIP6)]


@contextmanager
def load_balancer(net: Net, mode: str) -> Iterator[Gate]:
    """In a thread of its own, whose sockets are outside."""
    gate, loop = Gate(), asyncio.new_event_loop()

    async def start() -> grpc.aio.Server:
        server = grpc.aio.server()
        add_NodeServiceServicer_to_server(NodeService(f"{LB}:9090", gate, listeners(mode), (LB, LB6)), server)
        server.add_insecure_port(f"{LB}:{NODE_PORT}")
        await server.start()
        return server

    def work() -> None:
        with namespace(net.outside):
            loop.run_forever()

    thread = Thread(target=work)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(START_S)
    try:
        yield gate
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(START_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
        loop.close()


class Agent:
    """gale-node on the node's machine; `before` stands before its command, such as setpriv."""

    def __init__(self, net: Net, folder: Path, *before: str, python_path: str = "") -> None:
        self.config = config = folder / "node.toml"
        config.write_text(
            f'[load_balancer]\naddresses = [{{ ip = "{LB}", port = {NODE_PORT} }}]\n'
            '[web]\naddress = "loopback"\n[node]\nname = "web"\n'
        )
        self.log = folder / "log"
        paths = os.pathsep.join(path for path in (python_path, str(ROOT)) if path)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command(net), *before, *program(), "--config", str(config)],
                stderr=log,
                env={**os.environ, "PYTHONPATH": paths},
            )

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(START_S)


def command(net: Net) -> tuple[str, ...]:
    return ("nsenter", f"--net=/run/netns/{net.node}")


def program() -> tuple[str, ...]:
    return (sys.executable, "-m", "gale.cli.node")


def undo(net: Net) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command(net), *program(), "--undo"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=START_S,
        check=False,
    )


@pytest.fixture
def net() -> Iterator[Net]:
    with machine() as net:
        yield net


@pytest.fixture
def start(net: Net, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Starts an agent; whatever a test leaves of it is ended, and its memory removed."""
    agents: list[Agent] = []
    with namespace(net.node):
        memory = RUN / f"{cookie()}.json"

    def one(*before: str, **more: str) -> Agent:
        agents.append(Agent(net, tmp_path, *before, **more))
        return agents[-1]

    yield one
    for agent in agents:
        agent.process.kill()
        agent.process.wait(START_S)
        sys.stdout.write(agent.log.read_text())
    memory.unlink(missing_ok=True)


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_it_prepares_its_machine_and_puts_everything_back(net: Net, start: Callable[..., Agent], mode: str) -> None:
    before = net.machine()
    with load_balancer(net, mode) as gate:
        agent = start()
        eventually(lambda: gate.serving, START_S)
        assert gate.address6 == NODE6
        assert VIP in net.inside("ip", "address", "show", "lo")
        assert net.machine() != before
        told = net.inside("curl", "-s", "http://127.0.0.1:5557/metrics").splitlines()
        assert f'gale_prepared{{load_balancer="{LB}:{NODE_PORT}"}} 1.0' in told
        assert 'gale_prepared_changes{kind="address"} 2.0' in told
        assert 'gale_prepared_changes{kind="program"} %.1f' % (0 if mode == "l2" else 2) in told
        decapsulated = 'gale_tunnel_packets_total{action="pass",verdict="decapsulated"} 0.0'
        assert (decapsulated in told) == (mode == "l3")
        agent.end(signal.SIGTERM)
        assert gate.said_goodbye
    assert agent.process.returncode == 0
    assert net.machine() == before
    assert "service address put on loopback" in agent.log.read_text()
    assert "service address taken off loopback" in agent.log.read_text()


def test_a_service_that_it_takes_no_part_in_any_more_keeps_its_address(net: Net, start: Callable[..., Agent]) -> None:
    """Connections go on, and until that is committed new ones come."""
    before = net.machine()
    with load_balancer(net, "l2") as gate:
        agent = start()
        eventually(lambda: gate.serving, START_S)
        with agent.config.open("a") as config:
            config.write('services = ["another"]\n')
        agent.process.send_signal(signal.SIGHUP)
        eventually(lambda: gate.services == {"another"}, START_S)
        assert gate.serving
        assert VIP in net.inside("ip", "address", "show", "lo")
        agent.end(signal.SIGTERM)
    assert net.machine() == before


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_killed_and_undone(net: Net, start: Callable[..., Agent], mode: str) -> None:
    before = net.machine()
    with load_balancer(net, mode) as gate:
        agent = start()
        eventually(lambda: gate.serving, START_S)
        prepared = net.machine()
        refusal = undo(net)
        assert refusal.returncode == 1
        assert "another gale-node prepares this machine: stop it first" in refusal.stderr
        assert net.machine() == prepared
        agent.end(signal.SIGKILL)
        assert net.machine() == prepared
        done = undo(net)
        assert done.returncode == 0, done.stderr
        assert net.machine() == before
        assert undo(net).returncode == 0, "nothing to undo is no error"


def test_killed_and_started_again(net: Net, start: Callable[..., Agent]) -> None:
    """The successor changes nothing, serves at once, and puts back what its predecessor changed."""
    before = net.machine()
    with load_balancer(net, "l3") as gate:
        first = start()
        eventually(lambda: gate.serving, START_S)
        prepared = net.inside("tc", "filter", "show", "dev", "eth0", "egress"), net.machine()
        first.end(signal.SIGKILL)
        gate.last = None
        second = start()
        eventually(lambda: gate.last is not None, START_S)
        assert gate.serving
        assert (net.inside("tc", "filter", "show", "dev", "eth0", "egress"), net.machine()) == prepared
        assert "program attached" not in second.log.read_text()
        second.end(signal.SIGTERM)
    assert net.machine() == before


def test_few_rights_are_enough_also_for_one_that_finds_what_another_left(net: Net, start: Callable[..., Agent]) -> None:
    """Those of the unit: CAP_SYS_ADMIN, by which the kernel tells whose programs are attached, is not among them."""
    before = net.machine()
    rights = ("setpriv", "--bounding-set=-all,+bpf,+perfmon,+net_admin", "--inh-caps=-all", "--")
    Pins("lo").mount()
    OWN.mkdir(exist_ok=True)
    with load_balancer(net, "l3") as gate:
        first = start(*rights)
        eventually(lambda: gate.serving, START_S)
        first.end(signal.SIGKILL)
        gate.last = None
        second = start(*rights)
        eventually(lambda: gate.last is not None, START_S)
        assert gate.serving
        second.end(signal.SIGTERM)
        assert "program taken off" in second.log.read_text()
    assert net.machine() == before
    assert not list(OWN.glob(f"node-*-{net.inside('stat', '-Lc', '%i', '/proc/self/ns/net').strip()}"))


def test_without_rights_it_says_so_and_does_not_serve(net: Net, start: Callable[..., Agent]) -> None:
    before = net.machine()
    with load_balancer(net, "l2") as gate:
        agent = start("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
        eventually(lambda: gate.refused("need gale-node to run as root"), START_S)
        agent.end(signal.SIGTERM)
    assert net.machine() == before
    assert "this node is not prepared" in agent.log.read_text()


def test_l4_needs_no_rights(net: Net, start: Callable[..., Agent], tmp_path: Path) -> None:
    with load_balancer(net, "l4") as gate:
        agent = start("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
        eventually(lambda: gate.serving, START_S)
        assert gate.address6 == NODE6
        agent.end(signal.SIGTERM)
    assert "setting changed" not in agent.log.read_text()


def test_without_bcc_it_says_so_and_tries_again(net: Net, start: Callable[..., Agent], tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text('raise ImportError("hidden by a test")\n')
    with load_balancer(net, "l3") as gate:
        agent = start(python_path=str(tmp_path))
        eventually(lambda: gate.refused("bcc is missing"), START_S)
        (tmp_path / "bcc.py").unlink()
        eventually(lambda: gate.serving, START_S)
        agent.end(signal.SIGTERM)
