"""Orders and strong questions over real gRPC: their outcome, or one line that says why there is none."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result

from gale.cli import ctl_events
from gale.cli.asking import Asking
from gale.cli.ctl import main
from gale.cli.ctl_events import fetch, following
from gale.core.commands import Announce
from gale.core.state import Phase
from gale.errors import RemoteError
from gale.leaving import drained
from gale.ports import Flow
from gale.rpc.client import ask, fetch_cluster_status, operator_link, set_drain
from gale.rpc.v1 import api_pb2 as pb
from tests.rpc.test_conversation import ADDRESS, SHARED, Box, eventually, load_balancer, node

OTHER = "127.0.0.1:9091"


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A load balancer that routes to the node "web"."""
    async with load_balancer() as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        yield box
        box.consensus.quorum = True


async def test_a_drain_is_committed_when_its_answer_comes(box: Box) -> None:
    answer = await set_drain(box.api, "web", True, 3)
    assert (answer.phase, answer.drained, box.phase()) == ("draining", True, Phase.DRAINING)
    status = await fetch_cluster_status(box.api, 3)
    assert status["nodes"][0]["drained"]
    assert (await set_drain(box.api, "web", False, 3)).phase == "routing"


async def test_an_order_that_is_refused_or_not_decided_says_why(box: Box) -> None:
    with pytest.raises(RemoteError, match="no node is called wbe"):
        await set_drain(box.api, "wbe", True, 3)
    box.consensus.quorum = False
    with pytest.raises(RemoteError, match="not committed: there is no leader"):
        await set_drain(box.api, "web", True, 3)
    assert box.phase() is Phase.ROUTING


async def test_waiting_for_a_drain_is_for_its_flows_to_end(box: Box) -> None:
    web = box.consensus.state.nodes["web"].number
    flow = Flow("198.51.100.7", 40_000, "tcp", "default", "192.0.2.1", 8080, web, 40_000, "established", 0.1)
    box.dataplane.flows.all = [flow, replace(flow, state="ended"), replace(flow, node=web + 1)]

    async def wait(within: str) -> Result:
        command = ["node", "drain", "web", "--wait", "--within", within, "--server", str(box.api)]
        return await asyncio.to_thread(CliRunner().invoke, main, command)

    late = await wait("2s")
    assert late.exit_code == 1
    assert late.stdout.endswith(f"node web: its flows have not ended in time\n{ADDRESS}: 1 flows go on\n")
    waiting = asyncio.create_task(wait("20s"))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    box.dataplane.flows.all = []
    assert (await waiting).stdout.endswith("node web: drained, its flows have ended\n")


async def test_a_node_that_is_leaving_waits_for_its_flows() -> None:
    leaving, hurry = asyncio.Event(), asyncio.Event()
    async with load_balancer() as box, node(box.nodes, leaving=leaving) as conversation:
        await eventually(lambda: box.phase() is Phase.ROUTING)
        web = box.consensus.state.nodes["web"].number
        flow = Flow("198.51.100.7", 40_000, "tcp", "default", "192.0.2.1", 8080, web, 40_000, "established", 0.1)
        box.dataplane.flows.all = [flow]
        leaving.set()
        said: list[str] = []
        waiting = asyncio.create_task(drained([conversation], hurry, 20, said.append))
        await eventually(lambda: conversation.flows == 1)
        assert box.phase() is Phase.DRAINING
        (told,) = (await fetch_cluster_status(box.api, 3))["nodes"]
        assert (told["phase"], told["drained"], told["reason"]) == ("draining", False, "its gale-node was told to stop")
        assert not waiting.done()
        await eventually(lambda: said[-1:] == ["draining: 1 flows go on"])
        box.dataplane.flows.all = []
        await asyncio.wait_for(waiting, 5)
        box.dataplane.flows.all = [flow]
        await eventually(lambda: conversation.flows == 1)
        began_s = time.monotonic()
        await drained([conversation], hurry, 0.5, said.append)
        hurry.set()
        await drained([conversation], hurry, 20, said.append)
        assert 0.4 < time.monotonic() - began_s < 5
    assert box.phase() is Phase.LEFT


async def test_a_drain_that_the_kernel_does_not_have_yet_is_waited_for(box: Box) -> None:
    box.dataplane.refuse = lambda write: True
    await set_drain(box.api, "web", True, 3)
    (part,) = (await ask(box.api, "GetDraining", pb.GetDrainingRequest(node="web"), 3)).load_balancers
    assert (part.phase, part.HasField("flows")) == ("draining", False)
    box.dataplane.refuse = lambda write: False

    await eventually(lambda: not box.dataplane.view.owners("default"))
    await eventually(lambda: box.controller.flows_left("web") == 0)
    (part,) = (await ask(box.api, "GetDraining", pb.GetDrainingRequest(node="web"), 3)).load_balancers
    assert (part.HasField("flows"), part.flows) == (True, 0)


async def test_a_ban_lasts_until_it_is_lifted_and_then_the_node_joins_again(box: Box) -> None:
    banned = await ask(box.api, "SetBan", pb.SetBanRequest(node="web", on=True, why="it burns"), 3)
    assert (banned.phase, banned.HasField("banned_until")) == ("banned", False)
    await ask(box.api, "SetBan", pb.SetBanRequest(node="web"), 3)
    await eventually(lambda: box.phase() is Phase.ROUTING)


async def test_events_name_who_gave_an_order_and_why(box: Box) -> None:
    async with operator_link(replace(box.api, user="anna")) as link:
        anna = Asking(link, 3)
        await anna.ask("SetWeight", pb.SetWeightRequest(node="web", weight=5, why="half\nbroken"))
        (event,) = await fetch(anna, 0, 1)
        assert (event["subject"], event["before"], event["after"]) == ("node web", "weight 2", "weight 5")
        assert (event["who"], event["cause"]) == ("anna at 127.0.0.1", "an operator sets its weight: half broken")
        assert event["index"] == len(box.consensus.log)
        assert not await fetch(anna, event["sequence"], 0)
        earlier = await fetch(anna, 0, 0)
    assert [each["sequence"] for each in earlier] == list(range(1, event["sequence"] + 1))
    assert {each["who"] for each in earlier} == {ADDRESS, "anna at 127.0.0.1"}


async def test_events_are_followed_over_a_load_balancer_that_fails(
    box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ctl_events, "FOLLOW_S", 0.01)
    async with asyncio.timeout(10), operator_link(box.api) as link:
        told = following(Asking(link, 3), 1)
        assert (await anext(told))["after"] == "routing"
        coming = asyncio.ensure_future(anext(told))
        state = box.consensus.state
        box.consensus.state = replace(state, transitions=None)  # type: ignore[arg-type]
        await eventually(lambda: "trying again" in capsys.readouterr().err)
        assert not coming.done()
        box.consensus.state = state
        await ask(box.api, "SetWeight", pb.SetWeightRequest(node="web", weight=5), 3)
        assert (await coming)["after"] == "weight 5"


async def test_an_order_that_an_older_load_balancer_does_not_know_is_not_given(box: Box) -> None:
    older = Announce(0, "127.0.0.1:9091", "127.0.0.1:1", "0.1.9", SHARED, enforces=False, leads=False)
    await box.consensus.propose(older)
    with pytest.raises(RemoteError, match=r"127.0.0.1:9091 runs gale 0.1.9, which does not know this order"):
        await ask(box.api, "SetWeight", pb.SetWeightRequest(node="web", weight=5), 3)
    assert (await set_drain(box.api, "web", True, 3)).drained


async def test_leadership_is_handed_over_whoever_is_asked() -> None:
    quorum = (ADDRESS, OTHER)
    async with load_balancer(quorum) as leader, load_balancer(quorum, OTHER) as other:
        for box in (leader, other):
            box.consensus.connected, box.consensus.leader = frozenset(quorum), ADDRESS
            await leader.announced_to(box)
            await other.announced_to(box)
        asking = asyncio.create_task(ask(other.api, "HandOver", pb.HandOverRequest(to=OTHER, why="tea"), 5))
        await eventually(lambda: leader.consensus.leader == OTHER)
        assert not asking.done()
        other.consensus.leader = OTHER
        assert (await asking).leader == OTHER
        ordered = [each for each in other.consensus.state.transitions if each.after == f"to be {OTHER}"]
        assert [each.cause for each in ordered] == ["an operator asks for it: tea"]
        assert (await ask(leader.api, "HandOver", pb.HandOverRequest(to=OTHER), 5)).leader == OTHER


async def test_leadership_that_is_not_handed_over_is_an_event_that_says_so(box: Box) -> None:
    with pytest.raises(RemoteError, match="there is nobody to hand over to"):
        await ask(box.api, "HandOver", pb.HandOverRequest(why="tea"), 5)
    ordered, ended = box.consensus.state.transitions[-2:]
    assert (ordered.after, ended.subject, ended.before, ended.after) == (
        "to be another one",
        "leader",
        "to be another one",
        ADDRESS,
    )
    assert ended.cause.startswith("it was not handed over: there is nobody to hand over to")
    assert ended.who == ordered.who == "somebody at 127.0.0.1"


async def test_a_strong_answer_goes_through_the_log_and_needs_a_quorum(box: Box) -> None:
    before = (await fetch_cluster_status(box.api, 3))["applied_index"]
    assert (await fetch_cluster_status(box.api, 3, strong=True))["applied_index"] == before + 1
    box.consensus.quorum = False
    with pytest.raises(RemoteError, match="not committed: there is no leader"):
        await fetch_cluster_status(box.api, 3, strong=True)
    assert not (await fetch_cluster_status(box.api, 3))["quorum"]


SAID = (
    ("node drain web", 0, "node web: draining"),
    ("node undrain web", 0, "node web: routing"),
    ("node drain web -o json", 0, '"phase": "draining"'),
    ("node undrain web", 0, "node web: routing"),
    ("node drain wbe", 1, "gale-ctl: SERVER: no node is called wbe"),
    ("node drain wbe --wait", 1, "gale-ctl: SERVER: no node is called wbe"),
    ("node drain ../web", 1, "gale-ctl: SERVER: refused: '../web' is no name of a node"),
    ("node weight web 7", 0, "node web: routing, weight 7"),
    ("node weight web own -o json", 0, '"weight": 2'),
    ("node weight web 0", 2, "'0': 1 to 1000, or own"),
    ("cluster transfer 10.9.9.9", 1, "'10.9.9.9' is no load balancer: there are 127.0.0.1:9090"),
    ("cluster transfer", 1, "there is nobody to hand over to"),
    ("cluster transfer 127.0.0.1 -o json", 0, '"leader": "127.0.0.1:9090"'),
    ("events --last 1", 0, "to be another one -> "),
    ("node ban web", 0, "node web: banned until unban, weight 2"),
    ("node ban web --for 10m", 0, "node web: banned until 20"),
    ("node ban web --for soon", 2, "'soon': write e.g."),
    ("node ban wbe -o json", 1, '{"error": "SERVER: no node is called wbe", "code": 1}'),
    ("node unban web -o json", 0, '"phase": "joining"'),
    ("events -o json", 0, '"subject": "node web"'),
    ("cluster status --strong", 0, "of 1 nodes route"),
)


async def test_gale_ctl_prints_the_outcome_or_one_line(box: Box) -> None:
    for arguments, code, words in SAID:
        command = [*arguments.split(), "--server", str(box.api)]
        result = await asyncio.to_thread(CliRunner().invoke, main, command)
        told = result.stderr if code else result.stdout
        assert result.exit_code == code, (arguments, result.output)
        assert words.replace("SERVER", str(box.api)) in told, (arguments, told)
        own = [line for line in told.splitlines() if not line.startswith("level=")]  # the load balancer is here too
        assert code != 1 or len(own) == 1


async def test_gale_ctl_as_a_program(box: Box) -> None:
    command = [sys.executable, "-m", "gale.cli.ctl", "node", "drain", "wbe", "--server", str(box.api)]
    program = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(program.communicate(), 20)
    assert (program.returncode, out) == (1, b"")
    assert err.decode() == f"gale-ctl: {box.api}: no node is called wbe\n"
