"""What gale-node shows over HTTP, while a real conversation goes on."""

import asyncio

import pytest

from gale.config import NodeConfig
from gale.core.commands import Drain
from gale.core.probes import TcpProbe
from gale.core.state import Phase
from gale.errors import HostError
from gale.log import Refusals
from gale.node import Conversation, own_address, seen
from gale.prepare.memory import Memory
from gale.prepare.preparation import Preparation, Preparer
from gale.probe import Prober
from gale.rpc.client import Server
from gale.web.node_site import NodeSite
from gale.web.serving import doors, open_doors
from tests.raft.trio import free_addresses
from tests.rpc.test_conversation import eventually, load_balancer
from tests.rpc.test_web import Shown

AWAY = "127.0.0.1:1"
"""Where nobody listens."""


async def test_a_node_tells_of_both_ends_of_its_checks() -> None:
    async with load_balancer() as box:
        stop, refusals = asyncio.Event(), Refusals("web connection refused")
        port = int(free_addresses(1)[0].rpartition(":")[2])
        prober = Prober(TcpProbe(int(box.nodes.rpartition(":")[2])), 0.1, 1)
        preparation = Preparation(Preparer(Memory(), 2, "2001:db8::11"))
        config = NodeConfig("web", (box.nodes, AWAY))
        both = [
            Conversation(config, Server(a), prober, preparation, asyncio.Event(), stop) for a in config.load_balancers
        ]
        (door,) = doors(["127.0.0.1"], port, refusals, None)
        open_doors([door], NodeSite(lambda: seen(both, prober, preparation, refusals, None)).answer)
        node = Shown(box, port, refusals)
        assert (await node.get("/readyz"))[::2] == (503, "no load balancer answers\n")
        tasks = [asyncio.create_task(work) for work in (prober.run(), *(one.keep_up() for one in both))]
        try:
            await eventually(lambda: box.phase() is Phase.ROUTING and both[0].phase == Phase.ROUTING)
            assert (await node.get("/readyz"))[::2] == (200, "1 of 2 load balancers route to this node\n")
            assert (await node.get("/healthz"))[::2] == (200, "ok\n")
            assert (await node.get("/metrics", "POST"))[0] == 405
            told = dict(
                line.rsplit(" ", 1) for line in (await node.get("/metrics"))[2].splitlines() if line[:5] == "gale_"
            )
            assert float(told[f'gale_check_answers_total{{load_balancer="{box.nodes}"}}']) >= 3
            assert float(told[f'gale_checks_failed_total{{load_balancer="{AWAY}"}}']) >= 1
            assert told[f'gale_checks_sent_total{{load_balancer="{AWAY}"}}'] == "0.0"
            assert told[f'gale_told_phase{{load_balancer="{box.nodes}",phase="routing"}}'] == "1.0"
            assert told[f'gale_serving{{load_balancer="{box.nodes}"}}'] == "1.0"
            passed = float(told['gale_probes_total{result="passed"}'])
            assert passed >= 1
            assert 0 < float(told['gale_probe_seconds_total{result="passed"}']) < passed
            await box.controller.order(Drain(0, "web", True))
            await eventually(lambda: both[0].phase == Phase.DRAINING)
            assert (await node.get("/readyz"))[::2] == (503, f"{box.nodes}: this node is draining\n")
        finally:
            stop.set()
            tasks[0].cancel()
            await asyncio.wait(tasks, timeout=5)
            door.close()


def test_private_is_where_the_load_balancers_are_called_from() -> None:
    assert own_address(("nowhere.invalid:7070", "127.0.0.9:7070")) == "127.0.0.1"
    with pytest.raises(HostError, match=r'web.address: "private": there is no way to nowhere.invalid:7070'):
        own_address(("nowhere.invalid:7070",))
