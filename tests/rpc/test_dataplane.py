"""Counters, explanations and verifications over real gRPC, of two load balancers and one that is not there."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gale.core.commands import Announce
from gale.core.shared import Service
from gale.core.state import NodeInfo, Phase
from gale.errors import DataplaneError, RemoteError
from gale.memory import MemoryDataplane
from gale.ports import Counters, Explanation, FlowEntry, Header, Question, Traffic
from gale.rpc.answers import explanations_plain
from gale.rpc.client import Server, ask, fetch_cluster_status
from gale.rpc.plain import parts_plain
from gale.rpc.v1 import api_pb2 as pb
from tests.rpc.test_conversation import ADDRESS, SHARED, Box, eventually, load_balancer, node

GONE = "127.0.0.1:9091"
MIDDLE = Question("192.0.2.1", 40_000, "203.0.113.10", 8080)
FIRST = replace(MIDDLE, opening=True)
NO_FLOW = Explanation("no_flow", "pass", "belongs to none")
OPENED = Explanation(
    "opened",
    "redirect",
    "first packet of a new flow",
    mode="l4",
    service="default",
    slot=77,
    node=1,
    interface="private",
    headers=(Header("ipv4", {"source": "10.0.0.1", "destination": "127.0.0.1", "ttl": "63"}),),
)
KNOWN = replace(OPENED, verdict="forwarded", flow=FlowEntry(40_001, "established", 2.5))


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A load balancer that routes to the node "web", with another in its list that does not answer."""
    async with load_balancer((ADDRESS, GONE)) as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        yield box


def request(question: Question, here: bool = False) -> pb.ExplainRequest:
    return pb.ExplainRequest(
        source=question.source,
        source_port=question.source_port,
        destination=question.destination,
        destination_port=question.destination_port,
        protocol=question.protocol,
        here=here,
    )


async def test_counters_are_told_by_name_and_of_every_load_balancer(box: Box) -> None:
    traffic = Traffic(1 << 40, 2, 3, 4, 5)
    box.dataplane.counted = Counters({"forwarded": 9}, {"default": traffic}, {1: traffic, 77: Traffic(1)})
    answer = await ask(box.api, "GetCounters", pb.GetCountersRequest(), 3)
    mine, gone = parts_plain(answer)
    assert (mine["address"], mine["error"], mine["verdicts"]) == (ADDRESS, "", {"forwarded": 9})
    row = {"in_packets": 1 << 40, "in_bytes": 2, "out_packets": 3, "out_bytes": 4, "flows": 5}
    assert mine["services"] == {"default": row}
    assert mine["nodes"] == {"web": row, "#77": {**dict.fromkeys(row, 0), "in_packets": 1}}
    assert (gone["address"], gone["services"]) == (GONE, {})
    assert "no connection" in gone["error"]
    alone = await ask(box.api, "GetCounters", pb.GetCountersRequest(here=True), 3)
    assert [part.address for part in alone.load_balancers] == [ADDRESS]
    assert alone.load_balancers[0].time_ms > answer.load_balancers[0].time_ms


async def test_a_packet_is_explained_as_one_of_a_flow_and_without_such_a_flow_as_the_first_of_one(box: Box) -> None:
    box.dataplane.explanations = {MIDDLE: NO_FLOW, FIRST: OPENED}
    answer = await ask(box.api, "Explain", request(MIDDLE), 3)
    mine, gone = explanations_plain(answer.load_balancers)
    assert mine == {
        "address": ADDRESS,
        "error": "",
        "opening": True,
        "verdict": "opened",
        "action": "redirect",
        "meaning": "first packet of a new flow",
        "side": "public",
        "mode": "l4",
        "service": "default",
        "slot": 77,
        "node": "web",
        "node_address": "127.0.0.1",
        "flow": None,
        "interface": "private",
        "headers": [{"name": "ipv4", "fields": {"source": "10.0.0.1", "destination": "127.0.0.1", "ttl": "63"}}],
    }
    assert (gone["address"], gone["verdict"]) == (GONE, "")
    assert "no connection" in gone["error"]
    box.dataplane.explanations[MIDDLE] = KNOWN
    (known,) = explanations_plain((await ask(box.api, "Explain", request(MIDDLE, here=True), 3)).load_balancers)
    assert (known["opening"], known["verdict"]) == (False, "forwarded")
    assert known["flow"] == {"source_port": 40_001, "state": "established", "quiet_s": 2.5}


async def test_what_a_packet_does_not_get_as_far_as_is_absent(box: Box) -> None:
    (told,) = explanations_plain((await ask(box.api, "Explain", request(MIDDLE, here=True), 3)).load_balancers)
    assert (told["verdict"], told["slot"], told["node"], told["flow"], told["headers"]) == (
        "no_service",
        None,
        "",
        None,
        [],
    )


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (replace(MIDDLE, source="x"), "'x' does not appear to be an IPv4 or IPv6 address: write e.g. 192.0.2.1"),
        (
            replace(MIDDLE, destination="2001:db8::1"),
            "192.0.2.1 and 2001:db8::1: a packet has addresses of one IP version",
        ),
        (replace(MIDDLE, source_port=0), "port 0: 1 to 65535 is allowed"),
        (replace(MIDDLE, destination_port=70_000), "port 70000: 1 to 65535 is allowed"),
        (replace(MIDDLE, protocol="sctp"), "protocol 'sctp': tcp or udp is allowed"),
    ],
)
async def test_what_is_no_packet_is_refused(box: Box, question: Question, words: str) -> None:
    with pytest.raises(RemoteError, match="refused: ") as refusal:
        await ask(box.api, "Explain", request(question), 3)
    assert words in str(refusal.value)


async def test_a_verification_tells_what_differed_and_finds_it_mended_the_next_time(box: Box) -> None:
    box.dataplane.differences = ("node 1: address 10.0.0.9 instead of 10.0.0.1", "slots of default: 3 differ")
    answer = await ask(box.api, "VerifyDataplane", pb.VerifyDataplaneRequest(), 3)
    mine, gone = parts_plain(answer)
    assert mine == {"address": ADDRESS, "error": "", "differences": [*answer.load_balancers[0].differences]}
    assert len(mine["differences"]) == 2
    assert "no connection" in gone["error"]
    again = await ask(box.api, "VerifyDataplane", pb.VerifyDataplaneRequest(here=True), 3)
    assert parts_plain(again) == [{"address": ADDRESS, "error": "", "differences": []}]


async def test_a_kernel_that_cannot_be_asked_is_told_in_the_load_balancers_part(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dataplane: MemoryDataplane) -> tuple[str, ...]:
        raise DataplaneError("map nodes: not there")

    monkeypatch.setattr(MemoryDataplane, "verify", refuse)
    answer = await ask(box.api, "VerifyDataplane", pb.VerifyDataplaneRequest(here=True), 3)
    assert parts_plain(answer) == [{"address": ADDRESS, "error": "map nodes: not there", "differences": []}]


async def test_two_load_balancers_each_explain_for_themselves() -> None:
    """The one that is asked finds the other by what it announced."""
    async with load_balancer((ADDRESS, GONE)) as asked, load_balancer((ADDRESS, GONE), me=GONE) as other:
        await other.announced_to(asked)
        asked.dataplane.explanations = {MIDDLE: KNOWN}
        answer = await ask(asked.api, "Explain", request(MIDDLE), 3)
        first, second = explanations_plain(answer.load_balancers)
        assert (first["address"], first["verdict"]) == (ADDRESS, "forwarded")
        assert (second["address"], second["verdict"], second["error"]) == (GONE, "no_service", "")


async def test_a_load_balancer_that_hangs_keeps_no_explanation_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with load_balancer((ADDRESS, GONE)) as box:
            there = f"127.0.0.1:{silent.getsockname()[1]}"
            await box.consensus.propose(Announce(0, GONE, there, "0.1.0", SHARED, False, False))
            async with asyncio.timeout(15):
                answer = await ask(box.api, "Explain", request(MIDDLE), 30)
    mine, other = explanations_plain(answer.load_balancers)
    assert mine["verdict"] == "no_service"
    assert other["error"] == f"{there}: no answer in time: is that machine up, and the port let through?"


async def test_why_a_node_does_not_serve_and_what_it_lacks_are_in_the_status() -> None:
    health = replace(SHARED.health, checks_timeout_ms=60_000)  # a reason is told for as long as the check counts
    shared = replace(SHARED, health=health, services=(*SHARED.services, Service("web6", 443, 443, ("2001:db8::1",))))
    info = NodeInfo("web", "10.1.0.1")

    async with load_balancer(shared=shared) as box:

        def well() -> bool:
            standing = box.controller.check(info, serving=True)
            return standing.phase == "routing" and bool(box.dataplane.view.owners("default"))

        await eventually(well)
        assert not box.dataplane.view.owners("web6")
        lacks = "it has no IPv6 address, which web6 needs: it gets no flows of that"
        assert (await fetch_cluster_status(box.api, 3))["nodes"][0]["reason"] == lacks
        assert box.controller.check(info, serving=False, reason="port 80: refused").lacks == lacks
        told = (await fetch_cluster_status(box.api, 3))["nodes"][0]["reason"]
        assert told == f"does not serve: port 80: refused; {lacks}"
        assert "does not serve: port 80: refused" in await ctl(box.api, "node", "list")
        await eventually(well)
        assert (await fetch_cluster_status(box.api, 3))["nodes"][0]["reason"] == lacks


async def ctl(server: Server, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "gale.cli.ctl", *arguments, "--server", str(server)]
    program = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(program.communicate(), 20)
    assert program.returncode == code, err.decode()
    return (out or err).decode()


async def test_gale_ctl_explains(box: Box) -> None:
    v6 = Question("2001:db8::1", 1, "2001:db8::10", 53, "udp")
    box.dataplane.explanations = {MIDDLE: NO_FLOW, FIRST: OPENED, v6: KNOWN}
    table = await ctl(box.api, "explain", "192.0.2.1:40000", "203.0.113.10:8080")
    for words in (
        "opened",
        "first packet of a new flow",
        "the first of a flow",
        "default, l4",
        "77",
        "web at 127.0.0.1",
    ):
        assert words in table
    assert "no connection" in table
    told = json.loads(
        await ctl(box.api, "explain", "[2001:db8::1]:1", "[2001:DB8:0::10]:53", "--protocol", "udp", "-o", "json")
    )
    assert [part["verdict"] for part in told["load_balancers"]] == ["forwarded", ""]


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (("192.0.2.1", "203.0.113.10:80"), "'192.0.2.1': write e.g. 192.0.2.1:40000 or [2001:db8::1]:40000"),
        (("2001:db8::1:80", "[2001:db8::10]:80"), "'2001:db8::1:80': write e.g."),
        (("[192.0.2.1]:80", "203.0.113.10:80"), "'[192.0.2.1]:80': write e.g."),
        (("192.0.2.1:0", "203.0.113.10:80"), "'192.0.2.1:0': write e.g."),
        (("192.0.2.1:80", "[2001:db8::10]:80"), "192.0.2.1 and 2001:db8::10: a packet has addresses of one IP version"),
    ],
)
async def test_gale_ctl_refuses_what_is_no_endpoint(ends: tuple[str, str], words: str) -> None:
    assert words in await ctl(Server("127.0.0.1:1"), "explain", *ends, code=2)


async def test_gale_ctl_counts_with_rates(box: Box) -> None:
    box.dataplane.counted = Counters({"forwarded": 9, "opened": 0}, {"default": Traffic(9, 900)}, {1: Traffic(9, 900)})
    once = json.loads(await ctl(box.api, "counters", "--interval", "0", "-o", "json"))["load_balancers"]
    assert once[0]["verdicts"]["forwarded"] == {"packets": 9, "per_s": None}
    asking = asyncio.create_task(ctl(box.api, "counters", "--interval", "2"))
    await asyncio.sleep(0.1)
    counted = [9]

    def more() -> bool:
        counted[0] += 100
        box.dataplane.counted = Counters({"forwarded": counted[0]}, {"default": Traffic(counted[0])}, {})
        return asking.done()

    await eventually(more, within_s=20)
    table = await asking
    verdict = next(line.split() for line in table.splitlines() if line.startswith(" forwarded"))
    assert float(verdict[3].replace(",", "")) > 0
    assert "/s)" in next(line for line in table.splitlines() if line.startswith(" default"))
    assert f"{GONE}: " in table
    assert "opened" not in table


async def test_gale_ctl_watches_until_it_is_stopped(box: Box) -> None:
    command = [sys.executable, "-m", "gale.cli.ctl", "counters", "--watch", "0.1", "-o", "json"]
    program = await asyncio.create_subprocess_exec(
        *command, "--server", str(box.api), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert program.stdout
    async with asyncio.timeout(20):
        lines = [json.loads(await program.stdout.readline()) for _ in range(3)]
        program.send_signal(2)
        _, err = await program.communicate()
    assert (program.returncode, err) == (0, b"")
    assert [line["load_balancers"][0]["seconds"] is None for line in lines] == [True, False, False]


async def test_gale_ctl_verifies_and_its_exit_code_says_whether_something_differed() -> None:
    async with load_balancer() as box:
        await eventually(lambda: bool(box.dataplane.attachments))  # it has verified by then
        box.dataplane.differences = ("node 1: gone",)
        assert f"{ADDRESS}: mended: node 1: gone" in await ctl(box.api, "dataplane", "verify", code=1)
        assert f"{ADDRESS}: as it should be" in await ctl(box.api, "dataplane", "verify")
        told = json.loads(await ctl(box.api, "dataplane", "verify", "-o", "json"))
        assert told == {"load_balancers": [{"address": ADDRESS, "error": "", "differences": []}]}


async def test_a_load_balancer_that_does_not_answer_is_not_verified(box: Box) -> None:
    assert f"{GONE}: " in await ctl(box.api, "dataplane", "verify", code=1)
