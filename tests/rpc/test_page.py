"""The page: what it tells, from whom it takes orders, and that people can use it, in a real Chromium."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gale.core.commands import Announce
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import NodeInfo
from gale.log import Refusals
from gale.ports import Counters, Traffic
from gale.tls import Identity, Role
from gale.web.http import Answer, Request
from gale.web.page import NODES_MAX, Moment, Picture, Wanted
from gale.web.serving import doors, open_doors
from gale.web.site import Site
from tests.browser import CHROMIUM, Page, chromium
from tests.raft.trio import free_addresses
from tests.rpc.certificates import Folder
from tests.rpc.test_conversation import Box, eventually, load_balancer
from tests.rpc.test_web import OTHER
from tests.rpc.test_web import shown as web
from tests.unit.test_families import many_nodes

ME, SECOND, THIRD = (f"192.168.1.{last}:9090" for last in (2, 3, 4))
WEB, DNS = Service("web", 80, 8080, mode="l4"), Service("dns", 53, 53, protocols=("udp",), mode="l3")
SHARED = SharedConfig(HealthPolicy(2, 3_600_000), (WEB, DNS))
OPERATOR = Identity(Role.OPERATOR, "anna")
AT_ANY_SPEED = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
HOSTILE = "<img src=x onerror=alert(1)>"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: chromium)")
pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def cluster() -> AsyncIterator[Box]:
    """Three load balancers of which the third is not heard, with four nodes of which one does not serve."""
    async with load_balancer((ME,), ME, SHARED) as box:
        for other in (SECOND, THIRD):
            await box.consensus.propose(Announce(0, other, "127.0.0.1:1", "0.2.0", SHARED, False, False))
        box.consensus.connected = frozenset({ME, SECOND})
        nodes = [NodeInfo(f"web-{number}", f"192.168.1.{10 + number}", reports_to=1) for number in range(1, 5)]
        for info in nodes:
            await eventually(partial(routes, box, info))
        box.controller.check(nodes[3], serving=False, reason=f"GET / says 503 {HOSTILE}")
        await eventually(lambda: box.phase("web-4") == "failed")
        yield box


def routes(box: Box, info: NodeInfo) -> bool:
    """Check once more, and see."""
    return box.controller.check(info, serving=True).phase == "routing"


def forward(box: Box, times: int) -> None:
    """Let the kernel have counted."""
    each = {
        1: Traffic(900 * times, 540_000 * times, 800 * times, 9_000_000 * times, 80 * times),
        2: Traffic(100 * times),
    }
    service = {"web": Traffic(1_000 * times, 600_000 * times, 900 * times, 11_000_000 * times, 100 * times)}
    verdicts = {"forwarded": 900 * times, "opened": 100 * times, "returned": 900 * times, "no_room": 2 * times}
    box.dataplane.counted = Counters(verdicts, service, each)


async def order(site: Site, headers: dict[str, str] | None = None, body: object = None, **about: Any) -> Answer:
    """As the page gives it, but for what is said."""
    own = {
        "host": "lb:5556",
        "origin": "https://lb:5556",
        "sec-fetch-site": "same-origin",
        "content-type": "application/json",
        "x-gale-order": "1",
    }
    asked = {"node": "web-1", "drain": True} if body is None else body
    sent = {name: value for name, value in {**own, **(headers or {})}.items() if value}
    request = Request("POST", "/order", headers=sent, body=json.dumps(asked).encode(), who=OPERATOR)
    return await site.answer(replace(request, **about))


async def test_what_is_known_is_told() -> None:
    async with cluster() as box:
        forward(box, 1)
        site = Site(box.controller, {})
        answer = await site.answer(Request("GET", "/page.json"))
        told = json.loads(b"".join(answer.pieces))
    assert answer.kind == "application/json"
    assert (told["address"], told["may_order"], told["who"], told["unready"]) == (ME, False, "", [])
    assert told["cluster"]["leader"] == ME
    assert [(lb["address"], lb["heard"]) for lb in told["load_balancers"]] == [
        (ME, True),
        (SECOND, True),
        (THIRD, False),
    ]
    assert [(each["name"], each["nodes"], each["flows"]) for each in told["services"]] == [
        ("web", 3, 100),
        ("dns", 3, 0),
    ]
    assert {each["name"]: each["packets"] for each in told["verdicts"]}["no_room"] == 2
    assert (told["phases"]["routing"], told["phases"]["failed"], told["found"]) == (3, 1, 4)
    worst, first, *_ = told["nodes"]
    assert (worst["name"], worst["phase"]) == ("web-4", "failed")
    assert worst["why"] == f"does not serve: GET / says 503 {HOSTILE}"
    assert (first["name"], first["in_packets"]) == ("web-1", 900)
    assert [each["sequence"] for each in told["events"]] == sorted(
        (e["sequence"] for e in told["events"]), reverse=True
    )


async def test_of_ten_thousand_nodes_a_page_is_told_and_what_is_looked_for_is_found() -> None:
    many = many_nodes(10_000)
    moment, picture = Moment(1.0, many.state, many.local, many.counters), Picture()
    drawn = await picture.draw(moment, Wanted.of({}))
    assert (drawn["found"], len(drawn["nodes"])) == (10_000, NODES_MAX)
    drawn = await picture.draw(moment, Wanted.of({"find": "WEB-9999", "phase": "routing"}))
    assert [node["name"] for node in drawn["nodes"]] == ["web-9999"]
    assert (await picture.draw(moment, Wanted.of({"phase": "failed"})))["found"] == 0


async def test_an_operator_orders_and_the_events_say_who_and_why() -> None:
    async with cluster() as box:
        site = Site(box.controller, {})
        answer = await order(site, body={"node": "web-1", "drain": True, "why": "new disk"})
        assert (answer.code, answer.body) == (200, "web-1: draining\n")
        last = box.consensus.state.transitions[-1]
        assert (last.subject, last.after, last.who) == ("node web-1", "draining", "operator anna")
        assert last.cause.endswith("new disk")
        assert (await order(site, body={"node": "web-1", "drain": False})).body == "web-1: routing\n"
        assert (await order(site, body={"node": "nobody", "drain": True})).code == 409
        box.consensus.quorum = False
        assert (await order(site)).code == 503


async def test_an_operators_certificate_is_enough_over_tls_and_none_is_not(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    own = folder.issue(Role.LOAD_BALANCER, OTHER)
    body = json.dumps({"node": "web-1", "drain": True})
    async with cluster() as box, web(box, own) as site:
        lines = [
            "POST /order HTTP/1.1",
            f"Host: {OTHER}:{site.port}",
            f"Origin: https://{OTHER}:{site.port}",
            "Content-Type: application/json",
            "X-Gale-Order: 1",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        request = "\r\n".join([*lines, "", body])
        anybody = ssl.create_default_context(cadata=(tmp_path / "ca.crt").read_text())
        assert (await site.ask(request, OTHER, anybody))[0] == 403
        assert (await site.ask(request))[0] == 403
        code, _, said = await site.ask(request, OTHER, folder.issue(Role.OPERATOR, "anna").client_context())
        assert (code, said) == (200, "web-1: draining\n")


REFUSED: tuple[tuple[dict[str, Any], int], ...] = (
    ({"who": None}, 403),
    ({"who": Identity(Role.READER, "grafana")}, 403),
    ({"who": Identity(Role.NODE, "web-1")}, 403),
    ({"headers": {"x-gale-order": ""}}, 403),
    ({"headers": {"content-type": "text/plain"}}, 403),
    ({"headers": {"content-type": "application/x-www-form-urlencoded"}}, 403),
    ({"headers": {"origin": "https://evil.example"}}, 403),
    ({"headers": {"origin": "http://lb:5556"}}, 403),
    ({"headers": {"origin": "https://lb:5557"}}, 403),
    ({"headers": {"origin": "null"}}, 403),
    ({"headers": {"origin": ""}}, 403),
    ({"headers": {"sec-fetch-site": "cross-site"}}, 403),
    ({"headers": {"sec-fetch-site": "same-site"}}, 403),
    ({"body": ["web-1"]}, 400),
    ({"body": {"node": "web-1"}}, 400),
    ({"body": {"node": "web-1", "drain": "yes"}}, 400),
    ({"body": {"node": "web-1", "drain": True, "force": True}}, 400),
    ({"body": {"node": "../x", "drain": True}}, 400),
    ({"method": "GET"}, 405),
)


async def test_from_others_and_of_other_forms_no_order_is_taken() -> None:
    async with cluster() as box:
        site, before = Site(box.controller, {}), box.consensus.state
        for change, code in REFUSED:
            assert (await order(site, **change)).code == code, change
        assert box.consensus.state is before


@asynccontextmanager
async def shown(folder: Path, rights: bool) -> AsyncIterator[tuple[Box, Page, str]]:
    """A cluster under traffic, its page in a Chromium, and the page's URL. `rights`: as if an operator's certificate
    had been shown, which no Chromium shows without being asked to by a person."""
    port = int(free_addresses(1)[0].rpartition(":")[2])
    async with cluster() as box:
        site = Site(box.controller, {})

        async def answer(request: Request) -> Answer:
            if not rights:
                return await site.answer(request)
            secure = request.headers.get("origin", "").replace("http:", "https:")
            return await site.answer(replace(request, who=OPERATOR, headers={**request.headers, "origin": secure}))

        async def traffic() -> None:
            for times in range(1_000_000):
                forward(box, 3 * times + (times % 7) * times // 50)
                await asyncio.sleep(0.5)

        (door,) = doors(["127.0.0.1"], port, Refusals("web connection refused"), None)
        open_doors([door], answer)
        busy = asyncio.create_task(traffic())
        try:
            async with chromium(folder / "chromium") as page:
                yield box, page, f"http://127.0.0.1:{port}/"
        finally:
            busy.cancel()
            door.close()


def text(selector: str) -> str:
    """Of a part of the page, in the page's own words; empty while there is none."""
    return f"(document.querySelector('{selector}')?.textContent ?? '')"


@needs_chromium
async def test_it_shows_the_cluster_live_and_asks_nobody_else(tmp_path: Path) -> None:
    async with shown(tmp_path, rights=False) as (box, page, url):
        await page.open(url, 1180, 900)
        await page.until(f"{text('#age')} === 'live'")
        await page.until(f"{text('#services')}.includes('bit/s')")
        assert THIRD in await page.value(text("#wrong"))
        assert HOSTILE in await page.value(text("#node-rows"))
        assert await page.value("document.images.length") == 0
        assert "gale-ctl node drain" in await page.value(text("#rights"))
        assert await page.value("document.querySelectorAll('#node-rows button').length") == 0
        box.consensus.quorum = False
        await page.until(f"{text('#wrong')}.includes('No quorum')")
        box.consensus.quorum = True
        await page.until(f"!{text('#wrong')}.includes('No quorum')")
        await page.open(url, 390, 844, phone=True, dark=True)
        await page.until(f"{text('#age')} === 'live'")
        assert await page.value("document.documentElement.scrollWidth") <= 390
        assert {asked.removeprefix(url).partition("?")[0] for asked in page.asked} == {
            "",
            "page.css",
            "page.js",
            "icon.svg",
            "page.json",
        }
        assert page.complaints == []
        await page.call("Network.emulateNetworkConditions", offline=True, **AT_ANY_SPEED)
        await page.until(f"{text('#age')}.includes('does not answer')")
        await page.call("Network.emulateNetworkConditions", offline=False, **AT_ANY_SPEED)
        await page.until(f"{text('#age')} === 'live'")


@needs_chromium
async def test_a_keyboard_is_enough_to_find_a_node_and_drain_it(tmp_path: Path) -> None:
    async with shown(tmp_path, rights=True) as (box, page, url):
        await page.open(url, 1180, 900)
        await page.until("document.querySelectorAll('#node-rows button').length === 4")
        await page.press("Tab")
        assert await page.value("document.activeElement.className") == "skip"
        await page.press("Enter")
        await page.press("Tab")
        assert await page.value("document.activeElement.id") == "find"
        await page.write("web-2")
        await page.until("document.querySelectorAll('#node-rows tr').length === 1")
        await page.press("Tab")
        await page.press("Tab")
        assert await page.value("document.activeElement.ariaLabel") == "Drain web-2"
        await page.press("Enter")
        await page.until("document.querySelector('dialog').open")
        await page.press("Escape")
        await page.until("!document.querySelector('dialog').open")
        assert await page.value("document.activeElement.ariaLabel") == "Drain web-2"
        await page.press("Enter")
        assert await page.value("document.activeElement.id") == "why"
        await page.write("new disk")
        await page.press("Tab")
        await page.press("Tab")
        await page.press("Enter")
        await page.until(f"{text('#said')} === 'web-2: draining'")
        assert str(box.phase("web-2")) == "draining"
        await page.until(f"{text('#event-rows tr')}.includes('new disk')")
        assert await page.value("document.activeElement.ariaLabel") == "Undrain web-2"
        assert page.complaints == []
