"""What gale-lb shows over HTTP: real requests on loopback, and what strangers try instead."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gale.core.commands import Drain
from gale.core.state import NodeInfo
from gale.errors import HostError
from gale.log import Refusals
from gale.ports import Counters, Traffic
from gale.tls import Credentials, Identity, Role
from gale.web import http
from gale.web.http import BODY_MAX, BOUNDS, HEAD_MAX, Answer, Request
from gale.web.serving import doors, open_doors, places
from gale.web.site import Site
from tests.raft.trio import free_addresses
from tests.rpc.certificates import Folder
from tests.rpc.test_conversation import Box, eventually, load_balancer

OTHER = "127.0.0.2"
"""An address that is not LOOPBACK: as the private one."""


class Shown:
    """A load balancer that routes to the node "web", and how it is asked."""

    def __init__(self, box: Box, port: int, refusals: Refusals) -> None:
        self.box = box
        self.port = port
        self.refusals = refusals

    async def get(self, target: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        return await self.ask(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    async def ask(
        self, request: str, address: str = "127.0.0.1", context: ssl.SSLContext | None = None
    ) -> tuple[int, dict[str, str], str]:
        reader, writer = await asyncio.open_connection(address, self.port, ssl=context)
        try:
            writer.write(request.encode())
            async with asyncio.timeout(10):
                head, _, body = (await reader.read(-1)).decode().partition("\r\n\r\n")
        finally:
            writer.transport.abort()
        first, *fields = head.split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        return int(first.split()[1]), headers, body


@asynccontextmanager
async def shown(box: Box, credentials: Credentials | None = None) -> AsyncIterator[Shown]:
    port = int(free_addresses(1)[0].rpartition(":")[2])
    refusals = Refusals("web connection refused")
    open_ = list(doors(places(OTHER, OTHER), port, refusals, credentials))
    open_doors(open_, Site(box.controller, {"web": refusals}, credentials).answer)
    try:
        yield Shown(box, port, refusals)
    finally:
        for door in open_:
            door.close()


@pytest.fixture
async def site() -> AsyncIterator[Shown]:
    info = NodeInfo("web", "10.1.0.1")
    async with load_balancer() as box, shown(box) as site:
        await eventually(lambda: box.controller.check(info, serving=True).phase == "routing")
        await eventually(lambda: bool(box.dataplane.view.owners("default")))
        yield site


async def test_metrics_are_told(site: Shown) -> None:
    site.box.dataplane.counted = Counters({"forwarded": 9}, {"default": Traffic(1, 2, 3, 4, 5)}, {1: Traffic(7)})
    code, headers, body = await site.get("/metrics")
    assert (code, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert int(headers["content-length"]) == len(body)
    lines = body.splitlines()
    for line in (
        "gale_ready 1.0",
        'gale_packets_total{action="redirect",verdict="forwarded"} 9.0',
        'gale_service_nodes{service="default"} 1.0',
        'gale_node_packets_total{direction="in",node="web"} 7.0',
        'gale_refused_total{port="web"} 0.0',
    ):
        assert line in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
    assert "gale_node_" not in (await site.get("/metrics?nodes=no"))[2]
    assert (await site.get("/metrics?nodes=some"))[0] == 400


async def test_what_is_dear_is_not_made_for_each_who_asks(site: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gale.web.serving.FRESH_S", 60)
    site.box.dataplane.counted = Counters({"forwarded": 1})
    first, _ = await asyncio.gather(site.get("/metrics"), site.get("/metrics"))
    site.box.dataplane.counted = Counters({"forwarded": 2})
    assert (await site.get("/metrics"))[2] == first[2]
    monkeypatch.setattr("gale.web.serving.FRESH_S", 0)
    assert 'verdict="forwarded"} 2.0' in (await site.get("/metrics"))[2]


async def test_health_is_that_of_the_loop_and_readiness_that_of_forwarding(site: Shown) -> None:
    assert (await site.get("/healthz"))[::2] == (200, "ok\n")
    assert (await site.get("/readyz"))[::2] == (200, "ready\n")
    site.box.consensus.quorum = False
    assert (await site.get("/readyz"))[::2] == (200, "ready, without a quorum: forwarding goes on\n")
    site.box.consensus.ready = False
    assert (await site.get("/readyz"))[::2] == (503, "it has not caught up with the log since its start\n")
    assert (await site.get("/healthz"))[0] == 200


async def test_a_kernel_that_takes_nothing_makes_unready(site: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.box.dataplane, "refuse", lambda write: True)
    await site.box.controller.order(Drain(0, "web", True))
    await eventually(lambda: bool(site.box.controller.local_status().troubles))
    code, _, body = await site.get("/readyz")
    assert (code, body) == (503, "the kernel does not take what is committed: refused on request: SetSlots\n")


async def test_what_is_not_there_and_what_cannot_be_done(site: Shown) -> None:
    assert (await site.get("/etc/passwd"))[0] == 404
    assert (await site.get("/../metrics"))[0] == 404
    code, headers, _ = await site.get("/metrics", "POST")
    assert (code, headers["allow"]) == (405, "GET, HEAD")
    code, headers, body = await site.get("/metrics", "HEAD")
    assert (code, body) == (200, "")
    assert int(headers["content-length"]) > 1_000
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("127.0.0.1:5556", 200),
        ("[::1]:5556", 200),
        ("evil.example:5556", 421),
        ("[", 421),
        ("", 421),
    ],
)
async def test_loopback_is_shown_to_no_other_sites_name(site: Shown, host: str, code: int) -> None:
    assert (await site.ask(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))[0] == code


async def test_one_connection_asks_many_times(site: Shown) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    async with asyncio.timeout(5):
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
    writer.close()
    assert site.refusals.count == 0


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("\x00\x01\x02\x03 no HTTP\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + "x" * (HEAD_MAX + 1), 431),
        (
            f"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY_MAX + 1}\r\n\r\n"
            + "x" * (BODY_MAX + 1),
            413,
        ),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_what_is_no_request_is_refused_and_counted(site: Shown, sent: str, code: int) -> None:
    assert (await site.ask(sent))[0] == code
    await eventually(lambda: site.refusals.count == 1)
    assert (await site.get("/healthz"))[0] == 200


async def test_whoever_dallies_is_shown_out(site: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_S", 0.2)
    monkeypatch.setattr(http, "IDLE_S", 0.2)
    for sent, refused in ((b"", 0), (b"GET /metrics HT", 1), (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 1)):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(sent)
        async with asyncio.timeout(2):
            await reader.read(-1)
        writer.transport.abort()
        await eventually(lambda: site.refusals.count == refused)  # noqa: B023


async def test_whoever_takes_no_answer_is_shown_out(site: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    async def long(request: Request) -> Answer:
        return Answer([b"x" * (1 << 20)] * 64)

    monkeypatch.setattr(http, "WRITE_S", 0.2)
    port = int(free_addresses(1)[0].rpartition(":")[2])
    (door,) = doors(["127.0.0.1"], port, site.refusals, None)
    open_doors([door], long)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n")
        await eventually(lambda: site.refusals.count == 1)
    finally:
        writer.transport.abort()
        door.close()


async def test_one_address_gets_its_share_of_the_connections_and_no_more(site: Shown) -> None:
    held = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(BOUNDS.per_source + 8)]
    try:
        await eventually(lambda: site.refusals.count == 8)
    finally:
        for _, writer in held:
            writer.transport.abort()

    async def answered() -> bool:
        try:
            return (await site.get("/healthz"))[0] == 200
        except (ConnectionError, IndexError):
            return False

    async with asyncio.timeout(5):
        while not await answered():  # noqa: ASYNC110  what is waited for is the door's work
            await asyncio.sleep(0.01)


async def test_with_certificates_it_is_tls_that_asks_for_none_and_plain_on_loopback(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    own = folder.issue(Role.LOAD_BALANCER, OTHER)
    anybody = ssl.create_default_context(cadata=(tmp_path / "ca.crt").read_text())
    request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with load_balancer() as box, shown(box, own) as site:
        await eventually(lambda: bool(box.dataplane.attachments))
        assert (await site.ask(request))[0] == 200
        assert (await site.ask(request, OTHER, anybody))[0] == 200
        assert (await site.ask(request, OTHER, folder.issue(Role.READER, "grafana").client_context()))[0] == 200
        assert site.refusals.count == 0
        stranger = Folder(tmp_path / "other").issue(Role.OPERATOR, "eve").client_context()
        stranger.load_verify_locations(tmp_path / "ca.crt")
        with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
            await site.ask(request, OTHER, stranger)
        with pytest.raises((ConnectionError, IndexError)):
            await site.ask(request, OTHER)
        await eventually(lambda: site.refusals.count == 2)
        await asyncio.sleep(1)  # a line a second
        with capture_logs() as lines:
            _, writer = await asyncio.open_connection(OTHER, site.port)
            writer.close()
            await eventually(lambda: site.refusals.count == 3)
        assert [line["reason"] for line in lines] == ["no TLS: it left in the middle"]
        assert "gale_certificate_expiry_timestamp_seconds 1." in (await site.get("/metrics"))[2]


async def test_who_asks_is_whom_the_certificate_names(tmp_path: Path) -> None:
    folder, asked = Folder(tmp_path), list[Identity | None]()
    own = folder.issue(Role.LOAD_BALANCER, OTHER)
    port = int(free_addresses(1)[0].rpartition(":")[2])

    async def remember(request: Request) -> Answer:
        asked.append(request.who)
        return Answer("")

    (door,) = doors([OTHER], port, Refusals("refused"), own)
    open_doors([door], remember)
    try:
        for context in (
            folder.issue(Role.OPERATOR, "anna").client_context(),
            ssl.create_default_context(cadata=(tmp_path / "ca.crt").read_text()),
        ):
            reader, writer = await asyncio.open_connection(OTHER, port, ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(5):
                await reader.read(-1)
            writer.transport.abort()
    finally:
        door.close()
    assert asked == [Identity(Role.OPERATOR, "anna"), None]


def test_where_it_listens_follows_from_one_word() -> None:
    assert places("off", "192.168.1.2") == ()
    assert places("loopback", "192.168.1.2") == ("127.0.0.1",)
    assert places("private", "192.168.1.2") == ("127.0.0.1", "192.168.1.2")
    assert places("10.9.0.2", "192.168.1.2") == ("127.0.0.1", "10.9.0.2")
    with pytest.raises(HostError, match=r"web.address: cannot listen on 203.0.113.9:2000"):
        next(doors(["203.0.113.9"], 20_000, Refusals("refused"), None))
