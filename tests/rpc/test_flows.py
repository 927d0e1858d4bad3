"""Flows over real gRPC: asked for, counted and killed by gale-ctl, of a load balancer that knows three."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from gale.core.state import Phase
from gale.errors import RemoteError
from gale.ports import Flow
from gale.rpc.client import ask, operator_link
from gale.rpc.flows import clients_from
from gale.rpc.plain import parts_plain
from gale.rpc.v1 import api_pb2 as pb
from tests.rpc.test_conversation import ADDRESS, Box, eventually, load_balancer, node
from tests.rpc.test_dataplane import GONE, ctl

FLOW = Flow("198.51.100.7", 40_000, "tcp", "default", "203.0.113.10", 80, 1, 40_001, "established", 2.5)
ORPHAN = replace(FLOW, client_port=40_002, node=None, state="opening")
SIX = replace(FLOW, client="2001:db8::7", address="2001:db8::80")


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A load balancer that routes to the node "web", with another in its list that does not answer."""
    async with load_balancer((ADDRESS, GONE)) as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        box.dataplane.flows.all = [FLOW, ORPHAN, SIX]
        yield box


async def test_flows_are_listed_by_name_and_of_every_load_balancer(box: Box) -> None:
    mine, gone = parts_plain(await ask(box.api, "GetFlows", pb.GetFlowsRequest(limit=2), 3))
    assert [(flow["client_port"], flow["node"], flow["state"]) for flow in mine["flows"]] == [
        (40_000, "web", "established"),
        (40_002, "", "opening"),
    ]
    assert (mine["address"], mine["more"], gone["address"], gone["flows"]) == (ADDRESS, True, GONE, [])
    assert "no connection" in gone["error"]
    table = await ctl(box.api, "flows", "list", "--client", "2001:db8::/32")
    assert "[2001:db8::7]:40000" in table
    assert "[2001:db8::80]:80/tcp" in table
    assert "2.5 s" in table
    assert f"{GONE}: " in table
    assert "gone" in await ctl(box.api, "flows", "list", "--state", "opening")
    assert "and more" in await ctl(box.api, "flows", "list", "--limit", "1")


async def test_flows_are_counted_by_service_node_and_state(box: Box) -> None:
    (mine, _) = json.loads(await ctl(box.api, "flows", "count", "--service", "default", "-o", "json"))["load_balancers"]
    row = {"service": "default", "protocol": "tcp"}
    assert mine["counts"] == [
        {**row, "node": "web", "state": "established", "flows": 2},
        {**row, "node": "", "state": "opening", "flows": 1},
    ]
    table = await ctl(box.api, "flows", "count", "--node", "web")
    assert [line.split() for line in table.splitlines()[1:3]] == [
        ["default", "tcp", "web", "0", "2", "0"],
        ["all", "0", "2", "0"],
    ]


async def test_chosen_flows_are_killed_and_that_is_logged(box: Box) -> None:
    choice = pb.FlowChoice(client="198.51.100.7:40000", state="established")
    with capture_logs() as lines:
        mine, gone = parts_plain(await ask(box.api, "KillFlows", pb.KillFlowsRequest(choice=choice), 3))
    assert (mine["killed"], gone["killed"], box.dataplane.flows.all) == (1, 0, [ORPHAN, SIX])
    (line,) = [line for line in lines if line["event"] == "flows killed by order"]
    assert (line["flows"], line["client"], line["who"]) == (1, "198.51.100.7:40000", "somebody at 127.0.0.1")
    told = await ctl(box.api, "flows", "kill", "--node", "web", code=1)  # one did not answer
    assert f"{ADDRESS}: 1 flows killed" in told
    assert "say which" in await ctl(box.api, "flows", "kill", code=2)
    assert "goes with no choice" in await ctl(box.api, "flows", "kill", "--all", "--node", "web", code=2)
    await ctl(box.api, "flows", "kill", "--all", code=1)
    assert box.dataplane.flows.all == []


async def test_an_end_to_flows_is_an_event_that_names_who_gave_the_order(box: Box) -> None:
    async with operator_link(replace(box.api, user="anna")) as link:
        request = pb.KillFlowsRequest(choice=pb.FlowChoice(node="web", state="established"), why="they hang")
        await link.ask("KillFlows", request, 3)
        await link.ask("KillFlows", request, 3)  # there are none any more, which is no event
    event = box.consensus.state.transitions[-1]
    assert (event.subject, event.before, event.after) == ("flows", "2 of node web, state established", "killed")
    assert (event.cause, event.who) == ("an operator ends them: they hang", "anna at 127.0.0.1")
    assert box.consensus.state.transitions[-2].subject != "flows"
    assert box.dataplane.flows.killed == 2


async def test_without_a_quorum_flows_are_ended_too_and_the_log_says_that_it_is_no_event(box: Box) -> None:
    box.consensus.quorum = False
    before = len(box.consensus.state.transitions)
    with capture_logs() as lines:
        await ask(box.api, "KillFlows", pb.KillFlowsRequest(), 3)
    box.consensus.quorum = True
    assert box.dataplane.flows.all == []
    assert len(box.consensus.state.transitions) == before
    told = {line["event"]: line for line in lines}
    assert told["flows killed by order"]["flows"] == 3
    assert "not committed" in told["not among the events"]["reason"]


async def test_a_load_balancer_says_for_whom_it_passes_an_order_on(box: Box) -> None:
    passed_on = pb.KillFlowsRequest(here=True, who="operator anna", why="they\nhang")
    with capture_logs() as lines:
        await ask(box.api, "KillFlows", passed_on, 3)
    (line,) = [line for line in lines if line["event"] == "flows killed by order"]
    assert (line["who"], line["why"]) == ("operator anna", "they hang")
    assert box.consensus.state.transitions[-1].subject != "flows"  # the one that was asked has it noted, for all


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"node": "wbe"}, "no node is called wbe"),
        ({"service": "wbe"}, "no service is called wbe: there are default"),
        ({"state": "open"}, "state 'open': opening or established or ended"),
        ({"client": "198.51.100.7/24"}, "client '198.51.100.7/24': write e.g."),
    ],
)
async def test_a_choice_of_what_there_is_not_is_refused(box: Box, choice: dict[str, str], words: str) -> None:
    with pytest.raises(RemoteError, match=f"refused: {words}"):
        await ask(box.api, "CountFlows", pb.CountFlowsRequest(choice=pb.FlowChoice(**choice)), 3)


@pytest.mark.parametrize(
    ("text", "network", "port"),
    [
        ("", "None", 0),
        ("198.51.100.7", "198.51.100.7/32", 0),
        ("198.51.100.0/24", "198.51.100.0/24", 0),
        ("198.51.100.7:443", "198.51.100.7/32", 443),
        ("2001:db8::7", "2001:db8::7/128", 0),
        ("[2001:db8::7]:443", "2001:db8::7/128", 443),
    ],
)
def test_clients_as_people_write_them(text: str, network: str, port: int) -> None:
    clients, found = clients_from(text)
    assert (str(clients), found) == (network, port)


@pytest.mark.parametrize(
    "text", ["198.51.100.7:0", "198.51.100.7:x", "[2001:db8::7]:65536", "web", "198.51.100.0/24:80"]
)
def test_what_is_no_client_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"write e\.g\."):
        clients_from(text)
