"""A real gale-node conversation and real API calls over gRPC on loopback, into a load balancer in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

import gale
from gale.clock import SystemClock
from gale.config import EffectiveConfig, NodeConfig
from gale.controller import Controller
from gale.core.commands import Announce
from gale.core.probes import TcpProbe
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import Phase
from gale.dataplane.settings import Listener
from gale.errors import HostError, RemoteError
from gale.memory import MemoryConsensus, MemoryDataplane
from gale.node import Conversation, told
from gale.prepare.memory import Memory
from gale.prepare.needs import Offer, Told
from gale.prepare.preparation import Preparation, Preparer
from gale.probe import Prober
from gale.rpc.api_service import ManagementService
from gale.rpc.auth import peer_address
from gale.rpc.client import Server, fetch_cluster_status, node_link
from gale.rpc.limits import NODE_LIMITS
from gale.rpc.node_service import REASON_MAX, NodeService, node_info
from gale.rpc.server import listen
from gale.rpc.v1 import node_pb2, node_pb2_grpc
from gale.rpc.v1.api_pb2_grpc import add_ManagementServiceServicer_to_server
from gale.rpc.v1.node_pb2_grpc import add_NodeServiceServicer_to_server

SHARED = SharedConfig(HealthPolicy(3, 1_000), (Service("default", 8080, 80),))
RARELY = replace(SHARED, health=HealthPolicy(1, 60_000))
"""Checks come every twenty seconds: what is told sooner was not left to the next one."""
ADDRESS = "127.0.0.1:9090"
PRIVATE = ("127.0.0.1", "::1")


class Box:
    """One load balancer: its loop and its servers are real, log and maps are in memory."""

    def __init__(
        self, nodes: int, api: int, controller: Controller, consensus: MemoryConsensus, dataplane: MemoryDataplane
    ) -> None:
        self.nodes = f"127.0.0.1:{nodes}"
        self.api = Server(f"127.0.0.1:{api}")
        self.controller = controller
        self.consensus = consensus
        self.dataplane = dataplane

    async def announced_to(self, other: "Box") -> None:
        """The other knows by its log where this one's API is."""
        await other.consensus.propose(
            Announce(0, self.controller.address, self.api.address, gale.__version__, SHARED, False, False)
        )

    def phase(self, name: str = "web") -> Phase | None:
        node = self.consensus.state.nodes.get(name)
        return node.phase if node else None


@asynccontextmanager
async def load_balancer(
    quorum: tuple[str, ...] = (ADDRESS,),
    me: str = ADDRESS,
    shared: SharedConfig = SHARED,
    listeners: tuple[Listener, ...] = (),
    in_force: EffectiveConfig | None = None,
) -> AsyncIterator[Box]:
    consensus, dataplane = MemoryConsensus(me), MemoryDataplane(service.name for service in shared.services)
    announce = Announce(0, me, "127.0.0.1:1", gale.__version__, shared, enforces=False, leads=False)
    controller = Controller(announce, consensus, dataplane, SystemClock())
    nodes, api = grpc.aio.server(), grpc.aio.server()
    ports = [server.add_insecure_port("127.0.0.1:0") for server in (nodes, api)]
    add_NodeServiceServicer_to_server(NodeService(ADDRESS, controller, listeners, PRIVATE), nodes)
    management = ManagementService(controller, quorum, api_port=1, in_force=lambda: in_force or EffectiveConfig())
    add_ManagementServiceServicer_to_server(management, api)
    await nodes.start()
    await api.start()
    loop = asyncio.create_task(controller.run())
    try:
        yield Box(ports[0], ports[1], controller, consensus, dataplane)
    finally:
        loop.cancel()
        await nodes.stop(None)
        await api.stop(None)


@asynccontextmanager
async def node(
    server: str, prober: Prober | None = None, leaving: asyncio.Event | None = None
) -> AsyncIterator[Conversation]:
    """A node's conversation, which is told to stop at the end."""
    leaving, stop = leaving or asyncio.Event(), asyncio.Event()
    config = NodeConfig("web", (server,), weight=2)
    preparation = Preparation(Preparer(Memory(), 1, "2001:db8::11"))
    conversation = Conversation(config, Server(server), prober or Prober(None, 1, 1), preparation, leaving, stop)
    task = asyncio.create_task(conversation.keep_up())
    try:
        yield conversation
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)


async def eventually(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110  what is waited for is another task's work
            await asyncio.sleep(0.01)


async def test_a_node_routes_after_its_checks_and_leaves_with_a_goodbye() -> None:
    async with load_balancer() as box:
        async with node(box.nodes):
            await eventually(lambda: box.phase() is Phase.ROUTING)
            known = box.consensus.state.nodes["web"]
            assert (known.info.address, known.info.weight, known.info.reports_to) == ("127.0.0.1", 2, 1)
            assert known.info.address6 == "2001:db8::11"
        assert box.phase() is Phase.LEFT
        assert known.fails == 0


async def test_another_weight_is_taken_without_leaving() -> None:
    config = NodeConfig("web", ("",), weight=9)  # the addresses stay those of before
    async with load_balancer(shared=RARELY) as box, node(box.nodes) as conversation:
        await eventually(lambda: box.phase() is Phase.ROUTING)
        conversation.renew(config)
        await eventually(lambda: box.consensus.state.nodes["web"].info.weight == 9)
        assert [change.after for change in box.consensus.state.transitions].count("routing") == 1
        assert box.phase() is Phase.ROUTING


async def test_a_node_is_told_of_another_timeout_and_does_not_fail_on_the_way() -> None:
    async with load_balancer() as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        shared = replace(SHARED, health=replace(SHARED.health, checks_timeout_ms=240))  # less than the interval so far
        box.controller.announce(Announce(0, ADDRESS, "127.0.0.1:1", "0.1.0", shared, enforces=False, leads=False))
        await asyncio.sleep(1.6)  # the timeout of before is over for 600 ms
        assert box.phase() is Phase.ROUTING
        assert not box.consensus.state.nodes["web"].fails


async def test_a_service_that_is_not_well_leaves_at_once_and_returns_after_its_checks() -> None:
    prober = Prober(TcpProbe(1), 1, 1)
    async with load_balancer(shared=RARELY) as box, node(box.nodes, prober):
        prober.weigh(None)
        await eventually(lambda: box.phase() is Phase.ROUTING)
        prober.weigh("no answer")
        assert prober.serving  # once may be chance
        prober.weigh("no answer")
        await eventually(lambda: box.phase() is Phase.FAILED)
        prober.weigh(None)
        await eventually(lambda: box.phase() is Phase.ROUTING)


async def test_why_a_node_does_not_serve_is_told() -> None:
    prober = Prober(TcpProbe(1), 1, 1)
    async with load_balancer() as box, node(box.nodes, prober):
        prober.weigh(None)
        await eventually(lambda: box.phase() is Phase.ROUTING)
        for _ in range(2):
            prober.weigh("no\nanswer\x1b" + "!" * 300)
        await eventually(lambda: box.phase() is Phase.FAILED)
        (known,) = (await fetch_cluster_status(box.api, 3))["nodes"]
        assert known["reason"].startswith("does not serve: the service is not well: no answer !!!")
        assert known["reason"].isprintable()
        assert len(known["reason"]) == len("does not serve: ") + REASON_MAX


async def test_a_node_is_told_what_the_load_balancer_listens_for() -> None:
    def listener(address: str, protocol: str) -> Listener:
        return Listener("web", address, 80, protocol, 8080, "l3", 6)

    listeners = (
        listener("203.0.113.80", "tcp"),
        listener("203.0.113.80", "udp"),
        listener("2001:db8::80", "tcp"),
        Listener("mail", "203.0.113.80", 25, "tcp", 25, "l4", 4),
    )
    async with load_balancer(listeners=listeners) as box, node_link(Server(box.nodes)) as link:
        config = await link.get_config("0.1.0", 3)
    web = Offer("web", ("203.0.113.80", "2001:db8::80"), "l3", 6)
    assert told(config, ()) == Told((web, Offer("mail", ("203.0.113.80",), "l4")), PRIVATE)
    assert told(config, ["web"]) == Told((web,), PRIVATE)
    (first, _) = config.services
    assert (first.port, first.target_port, list(first.protocols)) == (80, 8080, ["tcp", "udp"])


async def test_a_node_that_is_not_prepared_does_not_route() -> None:
    """It cannot have the load balancer's own address, and says so; nothing is tried."""
    listeners = (Listener("web", PRIVATE[0], 80, "tcp", 80, "l2", 4),)
    async with load_balancer(listeners=listeners) as box, node(box.nodes):
        await asyncio.sleep(1.5)  # four checks and more
        assert box.phase() is None


async def test_a_node_finds_a_load_balancer_that_starts_later() -> None:
    async with load_balancer() as gone:
        address = gone.nodes
    async with node(address):
        consensus = MemoryConsensus(ADDRESS)
        announce = Announce(0, ADDRESS, "127.0.0.1:1", "0.1.0", SHARED, enforces=False, leads=False)
        controller = Controller(announce, consensus, MemoryDataplane(), SystemClock())
        server = await listen([address], NODE_LIMITS)
        add_NodeServiceServicer_to_server(NodeService(ADDRESS, controller), server)
        await server.start()
        loop = asyncio.create_task(controller.run())
        await eventually(lambda: "web" in consensus.state.nodes and consensus.state.nodes["web"].phase is Phase.ROUTING)
    loop.cancel()
    await server.stop(None)


async def test_status_has_the_promised_form() -> None:
    other = "127.0.0.1:9091"
    async with load_balancer((ADDRESS, other)) as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        status = await fetch_cluster_status(box.api, 3)
    lists = {"load_balancers", "nodes", "degraded"}
    assert set(status) == {"leader", "term", "quorum", "generation", "applied_index", *lists}
    assert (status["leader"], status["quorum"], status["generation"]) == (ADDRESS, True, 2)
    mine, theirs = status["load_balancers"]
    assert mine == {
        "address": ADDRESS,
        "role": "leader",
        "applied_index": 4,
        "generation": 2,
        "config_hash": SHARED.hash,
        "version": gale.__version__,
        "reason": "",
        "degraded": [],
        "refused": 0,
        "attachments": {"private": "memory", "public": "memory"},
    }
    assert (theirs["address"], theirs["role"]) == (other, "unreachable")
    assert "is gale-lb running there?" in theirs["reason"]
    since = status["nodes"][0].pop("since")
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(since) < timedelta(seconds=10)
    assert status["nodes"] == [
        {
            "id": "web",
            "address": "127.0.0.1",
            "phase": "routing",
            "checks": {ADDRESS: 3},
            "fails": 0,
            "banned_until": None,
            "weight": 2,
            "drained": False,
            "reason": "",
            "address6": "2001:db8::11",
            "services": [],
        }
    ]


async def test_without_a_quorum_status_says_so_and_still_answers() -> None:
    async with load_balancer() as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        box.consensus.quorum = False
        status = await fetch_cluster_status(box.api, 3)
        box.consensus.quorum = True
    assert (status["leader"], status["quorum"]) == (None, False)
    assert status["nodes"][0]["phase"] == "routing"


async def test_nobody_there_is_one_line() -> None:
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:1: no connection: is gale-lb running there"):
        await fetch_cluster_status(Server("127.0.0.1:1"), 2)


async def test_a_port_in_use_is_one_line() -> None:
    async with load_balancer() as box:
        with pytest.raises(HostError, match=r"cannot listen on .*: is another program"):
            await listen([box.nodes], NODE_LIMITS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"node": ""}, "node name"),
        ({"node": "a b"}, "node name"),
        ({"node": "x" * 65}, "node name"),
        ({"weight": 0}, "weight 0"),
        ({"weight": 1_001}, "weight 1001"),
        ({"reports_to": 0}, "reports_to 0"),
        ({"condition": node_pb2.CONDITION_UNSPECIFIED}, "condition 0"),
        ({"services": ["x"] * 65}, "services"),
        ({"services": ["\n"]}, "services"),
        ({"address6": "x" * 100}, r"address6 'x{64}'"),
        ({"address6": "10.0.0.1"}, "address6 '10.0.0.1'"),
        ({"address6": "::ffff:10.0.0.1"}, "address6"),
        ({"address6": "fe80::1"}, "address6"),
        ({"address6": "ff02::1"}, "address6"),
    ],
)
def test_a_check_out_of_form_is_refused(change: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"node": "web", "weight": 1, "reports_to": 1, "condition": node_pb2.CONDITION_SERVING}
    assert node_info(node_pb2.Check(**good), "10.0.0.1").id == "web"
    with pytest.raises(ValueError, match=words):
        node_info(node_pb2.Check(**{**good, **change}), "10.0.0.1")


def test_an_address_has_one_form() -> None:
    check = node_pb2.Check(
        node="web", weight=1, reports_to=1, condition=node_pb2.CONDITION_SERVING, address6="2001:DB8:0::11"
    )
    assert node_info(check, "10.0.0.1").address6 == "2001:db8::11"


async def test_a_quiet_check_is_answered_when_there_is_news() -> None:
    serving = node_pb2.Check(
        node="web", weight=1, reports_to=1, condition=node_pb2.CONDITION_SERVING, services=["default"], quiet=True
    )
    async with load_balancer() as box, grpc.aio.insecure_channel(box.nodes) as channel:
        stream, phases = node_pb2_grpc.NodeServiceStub(channel).Checks(), []

        async def listen_in() -> None:
            async for reply in stream:
                phases.append(reply.phase)

        listening = asyncio.create_task(listen_in())
        for _ in range(8):
            await stream.write(serving)
            await asyncio.sleep(0.1)
        await eventually(lambda: phases[-1:] == ["routing"])
        assert phases == ["unknown", "joining", "routing"]
        for changes in ({"quiet": False}, {"weight": 2}, {"condition": node_pb2.CONDITION_GOODBYE}):
            check = node_pb2.Check()
            check.CopyFrom(serving)
            check.MergeFrom(node_pb2.Check(**changes))
            if not changes.get("quiet", True):
                check.quiet = False
            await stream.write(check)
            await asyncio.sleep(0.1)
        await listening
        assert box.consensus.state.nodes["web"].info.weight == 2
        assert phases == ["unknown", "joining", "routing", "routing", "left"]


async def test_a_refused_check_ends_the_stream_with_the_reason() -> None:
    async with load_balancer() as box, grpc.aio.insecure_channel(box.nodes) as channel:
        stream = node_pb2_grpc.NodeServiceStub(channel).Checks(iter([node_pb2.Check(node="bad name")]))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stream.read()
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("peer", "address"),
    [("ipv4:10.0.0.1:4000", "10.0.0.1"), ("ipv6:%5B::1%5D:4000", ""), ("unix:/run/x", ""), ("", "")],
)
def test_peer_address(peer: str, address: str) -> None:
    assert peer_address(peer) == address
