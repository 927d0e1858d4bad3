"""Services, a node and configurations, asked over real gRPC and shown by gale-ctl."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gale.cli.ctl import main
from gale.config import EffectiveConfig, load_lb
from gale.core.shared import SLOTS, HealthPolicy, Service
from gale.core.state import NodeInfo, Phase
from gale.errors import RemoteError
from gale.ports import Counters, Traffic
from gale.rpc.client import ask
from gale.rpc.plain import parts_plain, plain
from gale.rpc.v1 import api_pb2 as pb
from tests.rpc.test_conversation import ADDRESS, SHARED, Box, eventually, load_balancer
from tests.rpc.test_dataplane import GONE, ctl

DNS = Service("dns", 53, 53, ("203.0.113.53", "2001:db8::53"), ("tcp", "udp"), "l3", "ipv6")
TWO = replace(SHARED, health=HealthPolicy(3, 60_000), services=(*SHARED.services, DNS))
TOLD = EffectiveConfig(
    shared=dict(TWO.canonical()),
    hash=TWO.hash,
    own={"forwarding.flows": "1024"},
    warnings=("an even number of load balancers",),
    serves={"default": ("192.0.2.1:8080/tcp",)},
    machine={"kernel": "6.1"},
)


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A load balancer with two services; a node takes part in both, another in one, with three times the weight."""
    async with load_balancer((ADDRESS, GONE), shared=TWO, in_force=TOLD) as box:
        nodes = (
            NodeInfo("one", "10.1.0.1", address6="2001:db8::1"),
            NodeInfo("two", "10.1.0.2", weight=3, services=("default",)),
        )

        def routing() -> bool:
            for info in nodes:
                box.controller.check(info, serving=True)
            shared_out = len(box.dataplane.view.owners("default")) == 2
            return shared_out and all(box.phase(info.id) is Phase.ROUTING for info in nodes)

        await eventually(routing)
        yield box


async def test_services_are_told_with_their_nodes_when_asked_by_name(box: Box) -> None:
    every = [plain(each) for each in (await ask(box.api, "GetServices", pb.GetServicesRequest(), 3)).services]
    assert [(each["name"], each["routing"], each["nodes"], each["shares"]) for each in every] == [
        ("default", 2, 2, []),
        ("dns", 1, 1, []),
    ]
    (default,) = (await ask(box.api, "GetServices", pb.GetServicesRequest(name="default"), 3)).services
    held = {share.node: (share.weight, share.slots) for share in default.shares}
    assert held == {"one": (1, SLOTS // 4), "two": (3, 3 * SLOTS // 4)}
    assert (default.slots, default.orphans) == (SLOTS, 0)
    with pytest.raises(RemoteError, match="no service is called web: there are default, dns"):
        await ask(box.api, "GetServices", pb.GetServicesRequest(name="web"), 3)


async def test_a_node_is_told_with_its_shares_and_how_it_is_reached(box: Box) -> None:
    number = box.consensus.state.nodes["one"].number
    box.dataplane.counted = Counters(nodes={number: Traffic(7, 700, flows=2)})
    told = plain(await ask(box.api, "GetNode", pb.GetNodeRequest(name="one"), 3))
    assert (told["node"]["address6"], told["node"]["services"]) == ("2001:db8::1", [])
    assert [(share["service"], share["slots"]) for share in told["shares"]] == [
        ("default", SLOTS // 4),
        ("dns", SLOTS),
    ]
    mine, gone = told["load_balancers"]
    assert (mine["address"], mine["error"], mine["taken_away"]) == (ADDRESS, "", False)
    assert [(way["address"], way["interface"]) for way in mine["reached"]] == [("10.1.0.1", "memory")]
    assert (mine["traffic"]["in_bytes"], mine["traffic"]["flows"]) == (700, 2)
    assert (gone["reached"], gone["traffic"]) == ([], None)
    assert "no connection" in gone["error"]
    with pytest.raises(RemoteError, match="no node is called web"):
        await ask(box.api, "GetNode", pb.GetNodeRequest(name="web"), 3)


async def test_gale_ctl_shows_services_and_nodes(box: Box) -> None:
    listed = await ctl(box.api, "service", "list")
    assert "203.0.113.53, [2001:db8::53] port 53/tcp+udp" in listed
    assert "own addresses port 8080/tcp" in listed
    shown = await ctl(box.api, "service", "show", "default")
    assert "192.0.2.1:8080/tcp" in shown
    assert "75.00 %" in next(line for line in shown.splitlines() if line.startswith(" two"))
    node = await ctl(box.api, "node", "show", "one")
    for words in ("routing", "10.1.0.1, 2001:db8::1", "out of memory", "100.00 %", f"{GONE}: "):
        assert words in node
    assert "no node is called eno" in await ctl(box.api, "node", "show", "eno", code=1)
    assert "no service is called eno" in await ctl(box.api, "service", "show", "eno", code=1)


async def test_a_service_that_no_node_serves_is_bad_news() -> None:
    async with load_balancer(shared=TWO) as box:
        await eventually(lambda: box.consensus.state.reference is not None)
        assert "0 of 0 route" in await ctl(box.api, "service", "list", code=1)


async def test_the_configuration_in_force_is_told(box: Box) -> None:
    answer = await ask(box.api, "GetConfiguration", pb.GetConfigurationRequest(), 3)
    mine, gone = parts_plain(answer)
    assert (mine["shared"], mine["own"], mine["hash"]) == (TOLD.shared, TOLD.own, TWO.hash)
    assert (mine["serves"], mine["machine"]) == ({"default": {"places": ["192.0.2.1:8080/tcp"]}}, {"kernel": "6.1"})
    assert "no connection" in gone["error"]
    shown = await ctl(box.api, "config", "show", "127.0.0.1:9090")
    for words in ("service.dns.tunnel", "must agree", "forwarding.flows", "may differ", "warning: an even number"):
        assert words in shown
    assert "no load balancer has this address" in await ctl(box.api, "config", "show", "192.0.2.7", code=2)
    assert "no connection" in await ctl(box.api, "config", "show", GONE, code=1)


FILE = """
[private_interface]
net_interface_private = "eth0"
[public_interface]
net_interface_public = "eth1"
[load_balancer_quorum]
addresses = [{ ip = "127.0.0.1" }]
[node_health]
checks_timeout = "TIMEOUT"
[forwarding]
target_port = 80
"""


def written(path: Path, timeout: str) -> Path:
    path.write_text(FILE.replace("TIMEOUT", timeout))
    return path


def told_of(path: Path) -> EffectiveConfig:
    config = load_lb(path)
    return EffectiveConfig(dict(config.shared.canonical()), config.shared.hash, config.own)


async def diff(box: Box, *words: str, code: int = 0) -> dict[str, Any]:
    return dict(json.loads(await ctl(box.api, "config", "diff", *words, "-o", "json", code=code)))


async def test_where_load_balancers_differ_is_told_by_key(tmp_path: Path) -> None:
    mine, other = written(tmp_path / "mine.toml", "5s"), written(tmp_path / "other.toml", "9s")
    theirs = replace(told_of(other), own={**told_of(other).own, "forwarding.flows": "1024"})
    both = (ADDRESS, GONE)
    one, two = load_balancer(both, in_force=told_of(mine)), load_balancer(both, me=GONE, in_force=theirs)
    async with one as asked, two as there:
        await there.announced_to(asked)
        found = await diff(asked, code=1)
        assert found["differences"] == [
            {
                "key": "node_health.checks_timeout",
                "must_agree": True,
                "values": {ADDRESS: "5000ms", GONE: "9000ms"},
            },
            {"key": "forwarding.flows", "must_agree": False, "values": {ADDRESS: "262144", GONE: "1024"}},
        ]
        assert "9000ms" in await ctl(asked.api, "config", "diff", code=1)


async def test_a_file_is_compared_with_what_is_in_force(tmp_path: Path) -> None:
    same, other = written(tmp_path / "same.toml", "5s"), written(tmp_path / "other.toml", "9s")
    async with load_balancer(in_force=told_of(same)) as box:
        assert await diff(box, str(same)) == {"differences": [], "errors": []}
        (found,) = (await diff(box, str(other), code=1))["differences"]
        assert found["values"] == {ADDRESS: "5000ms", str(other): "9000ms"}
    checked = CliRunner().invoke(main, ["config", "check", str(same)])
    assert (checked.exit_code, "right; hash of" in checked.output) == (0, True)
