"""Who gets in over real TLS on loopback, what each may do there, and that certificates are renewed under way."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from gale.core.commands import Given
from gale.errors import RemoteError
from gale.rpc.auth import _forbidden
from gale.rpc.client import Server, _channel, fetch_local_status, node_link
from gale.rpc.giving import given_in
from gale.rpc.v1 import node_pb2
from gale.tls import Credentials, Role
from tests.rpc.certificates import Folder, Gate, echo, serving

API = "gale.v1.ManagementService"
OPEN = ("GetLocalStatus", "GetClusterStatus", "GetCounters")
NOT_OF_NODES = ("GetFlows", "CountFlows")
ORDERS = ("SetDrain", "KillFlows", "Explain", "VerifyDataplane", "AddedTomorrow")  # what nobody has opened is closed
METHODS = (*OPEN, *NOT_OF_NODES, *ORDERS)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "tls")


async def call(address: str, credentials: Credentials | None, path: str) -> grpc.StatusCode:
    async with _channel(Server(address, credentials)) as channel:
        try:
            await channel.unary_unary(path)(b"x", timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def checks(address: str, credentials: Credentials, *names: str) -> list[str]:
    """Check in under these names, one after another, over one stream; the phases that are answered."""

    async def words() -> AsyncIterator[node_pb2.Check]:
        for name in names:
            yield node_pb2.Check(node=name, weight=1, reports_to=1, condition=node_pb2.CONDITION_SERVING)

    async with asyncio.timeout(5), node_link(Server(address, credentials)) as link:
        return [reply.phase async for reply in link.checks(words())]


@pytest.mark.parametrize("role", list(Role))
async def test_everybody_with_a_certificate_may_ask_and_only_operators_and_load_balancers_order(
    folder: Folder, role: Role
) -> None:
    caller = folder.issue(role, "127.0.0.1" if role is Role.LOAD_BALANCER else "somebody")
    orders = role in (Role.OPERATOR, Role.LOAD_BALANCER)
    async with serving(folder.load_balancer(), echo(API, METHODS)) as address:
        codes = {method: await call(address, caller, f"/{API}/{method}") for method in METHODS}
    allowed = {*OPEN, *(NOT_OF_NODES if role is not Role.NODE else ()), *(ORDERS if orders else ())}
    assert {method for method, code in codes.items() if code is grpc.StatusCode.OK} == allowed
    assert set(codes.values()) <= {grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED}


async def test_without_certificates_everybody_may_do_everything() -> None:
    async with serving(None, echo(API, METHODS)) as address:
        for method in METHODS:
            assert await call(address, None, f"/{API}/{method}") is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("role", "name", "giver"), [(Role.OPERATOR, "anna", "operator anna"), (Role.LOAD_BALANCER, "127.0.0.1", "eve")]
)
def test_only_a_load_balancer_may_say_for_whom_it_passes_an_order_on(
    folder: Folder, role: Role, name: str, giver: str
) -> None:
    class Context:
        def auth_context(self) -> dict[str, list[bytes]]:
            return {"x509_pem_cert": [folder.issue(role, name).pem()[1]]}

    assert given_in(Context(), "", "127.0.0.1:9090", behalf="eve") == Given(giver)


async def test_a_refused_order_is_one_line(folder: Folder) -> None:
    reader = folder.issue(Role.READER, "grafana")
    async with serving(folder.load_balancer(), echo("gale.v1.NodeService", ["GetConfig"])) as address:
        with pytest.raises(RemoteError, match=r"refused: GetConfig is not for reader grafana: .* certificate of node$"):
            async with node_link(Server(address, reader)) as link:
                await link.get_config("0.1.0", 5)


@pytest.mark.parametrize("stranger", ["plain TCP", "another authority", "expired"])
async def test_a_stranger_is_refused_in_the_handshake(folder: Folder, tmp_path: Path, stranger: str) -> None:
    match stranger:
        case "plain TCP":
            credentials = None
        case "another authority":
            other = Folder(tmp_path / "other")
            other.issue(Role.OPERATOR, "anna")
            (other.path / "anna.both").write_bytes(folder.ca.certificate + other.ca.certificate)
            credentials = Credentials(other.path / "anna.both", other.path / "anna.crt", other.path / "anna.key")
        case _:
            credentials = folder.issue(Role.OPERATOR, "anna")
            credentials.pem = pem_of_expired(folder, credentials)  # type: ignore[method-assign]
    async with serving(folder.load_balancer(), echo(API, METHODS)) as address:
        assert await call(address, credentials, f"/{API}/GetLocalStatus") is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(RemoteError, match=r"it closes the connection: with \[tls\] a gale-lb takes"):
            await fetch_local_status(Server(address, credentials), 20)


async def test_strangers_are_counted_and_told_of_once_a_second(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gale.rpc.arrivals.SETTLED_S", 0.5)
    anna = folder.issue(Role.OPERATOR, "anna")
    async with serving(folder.load_balancer(), echo(API, METHODS)) as address:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with capture_logs() as lines:
            for _ in range(5):
                assert await call(address, anna, f"/{API}/GetLocalStatus") is grpc.StatusCode.OK
                _, writer = await asyncio.open_connection(*address.split(":"))
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await asyncio.sleep(0.05)
                writer.transport.abort()
            await asyncio.sleep(2)
            _, writer = await asyncio.open_connection(*address.split(":"))
            async with asyncio.timeout(10):
                while not lines or lines[-1]["refused_so_far"] < 6:  # noqa: ASYNC110  a log calls nobody back
                    await asyncio.sleep(0.05)
            took_s = loop.time() - began_s
            writer.transport.abort()
    assert {line["event"] for line in lines} == {"connection refused"}
    assert 2 <= len(lines) <= 1 + took_s
    assert lines[-1]["refused_so_far"] == 6


async def test_asking_with_a_certificate_where_there_is_no_tls_is_one_line(folder: Folder) -> None:
    anna = folder.issue(Role.OPERATOR, "anna")
    async with serving(None, echo(API, METHODS)) as address:
        with pytest.raises(RemoteError, match="no TLS: has the gale-lb there"):
            await fetch_local_status(Server(address, anna), 20)


def pem_of_expired(folder: Folder, good: Credentials) -> Callable[[], tuple[bytes, bytes, bytes]]:
    """gale's own client refuses to start with such a certificate: a stranger's would not."""
    ca, _, _ = good.pem()
    with pytest.raises(Exception, match="expired on"):
        folder.issue(Role.OPERATOR, "anna", age_days=400)
    own = (ca, (folder.path / "anna.crt").read_bytes(), (folder.path / "anna.key").read_bytes())
    return lambda: own


async def shake(address: str, folder: Folder, stem: str, most: ssl.TLSVersion) -> tuple[str, int]:
    """A handshake outside gRPC: the version that came of it, and the serial number of the server's certificate."""
    context = ssl.create_default_context(cafile=folder.path / "ca.crt")
    context.load_cert_chain(folder.path / f"{stem}.crt", folder.path / f"{stem}.key")
    context.maximum_version = most
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
        try:
            await reader.readexactly(9)  # the server's first HTTP/2 frame: it has taken our certificate
            tls = writer.get_extra_info("ssl_object")
            return tls.version(), x509.load_der_x509_certificate(tls.getpeercert(True)).serial_number
        finally:
            writer.transport.abort()


async def test_tls_1_2_is_refused(folder: Folder) -> None:
    folder.issue(Role.OPERATOR, "anna")
    async with serving(folder.load_balancer(), echo(API, METHODS)) as address:
        assert (await shake(address, folder, "anna", ssl.TLSVersion.TLSv1_3))[0] == "TLSv1.3"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shake(address, folder, "anna", ssl.TLSVersion.TLSv1_2)


def test_a_call_over_an_older_tls_is_refused_too() -> None:
    class Context:
        def auth_context(self) -> dict[str, list[bytes]]:
            return {"ssl_tls_version": [b"TLSv1.2"], "x509_pem_cert": [b""]}

    assert _forbidden(f"/{API}/GetLocalStatus", Context()) == "TLS 1.3 only"


async def test_a_node_speaks_for_itself_only(folder: Folder) -> None:
    gate = Gate()
    web, anna = folder.issue(Role.NODE, "web-1"), folder.issue(Role.OPERATOR, "anna")
    async with serving(folder.load_balancer(), gate=gate) as address:
        assert await checks(address, web, "web-1", "web-1") == ["routing", "routing"]
        with pytest.raises(RemoteError, match=r"refused: node name 'web-2': the certificate is for node web-1"):
            await checks(address, web, "web-1", "web-2")
        with pytest.raises(RemoteError, match="Checks is not for operator anna"):
            await checks(address, anna, "anna")
    assert gate.checks == {"web-1": 3}


@pytest.mark.parametrize("impostor", ["another authority", "a node", "another load balancer"])
async def test_a_caller_refuses_who_is_not_that_load_balancer(folder: Folder, tmp_path: Path, impostor: str) -> None:
    match impostor:
        case "another authority":
            server = Folder(tmp_path / "other").load_balancer()
        case "a node":
            server = folder.issue(Role.NODE, "web-1")
        case _:
            server = folder.load_balancer()
    anna = folder.issue(Role.OPERATOR, "anna")
    async with serving(server, echo(API, METHODS)) as address:
        called = address.replace("127.0.0.1", "127.0.0.2") if impostor == "another load balancer" else address
        if called != address:
            relay = await asyncio.start_server(relay_to(address), *called.split(":"))
        with pytest.raises(RemoteError, match="refused by us: its certificate is not a load balancer"):
            await fetch_local_status(Server(called, anna), 2)
        if called != address:
            relay.close()


def relay_to(address: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """127.0.0.2 leads to the server at `address`, whose certificate does not name it."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = address.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(4096):
                sink.write(data)
            sink.transport.abort()

        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer), return_exceptions=True)

    return relay


async def test_certificates_are_renewed_while_streams_go_on(folder: Folder) -> None:
    server, web = folder.load_balancer(), folder.issue(Role.NODE, "web-1")
    asked: asyncio.Queue[None] = asyncio.Queue()

    async def words() -> AsyncIterator[node_pb2.Check]:
        while True:
            await asked.get()
            yield node_pb2.Check(node="web-1", weight=1, reports_to=1, condition=node_pb2.CONDITION_SERVING)

    async with asyncio.timeout(10), serving(server, gate=Gate()) as address, node_link(Server(address, web)) as link:
        replies = link.checks(words())
        asked.put_nowait(None)
        assert (await anext(replies)).phase == "routing"
        _, before = await shake(address, folder, "web-1", ssl.TLSVersion.TLSv1_3)

        folder.load_balancer()
        _, after = await shake(address, folder, "web-1", ssl.TLSVersion.TLSv1_3)
        assert after != before
        asked.put_nowait(None)
        assert (await anext(replies)).phase == "routing"

        (folder.path / "127.0.0.1.crt").write_text("half a certificate")
        assert (await shake(address, folder, "web-1", ssl.TLSVersion.TLSv1_3))[1] == after
        assert await checks(address, web, "web-1") == ["routing"]
        asked.put_nowait(None)
        assert (await anext(replies)).phase == "routing"


async def test_who_is_under_an_authority_that_is_no_longer_trusted_is_out(folder: Folder, tmp_path: Path) -> None:
    """The way to lock out a stolen key: a new authority, for a while beside the old one."""
    new = Folder(tmp_path / "new")
    server, old_web = folder.load_balancer(), folder.issue(Role.NODE, "web-1")
    both = folder.ca.certificate + new.ca.certificate
    async with serving(server, gate=Gate()) as address:
        (folder.path / "ca.crt").write_bytes(both)
        (new.path / "ca.crt").write_bytes(both)
        new_web = new.issue(Role.NODE, "web-1")
        assert await checks(address, new_web, "web-1") == ["routing"]
        assert await checks(address, old_web, "web-1") == ["routing"]

        new.load_balancer()
        for name in ("127.0.0.1.key", "127.0.0.1.crt"):
            (folder.path / name).write_bytes((new.path / name).read_bytes())
        server.pem()
        assert await checks(address, old_web, "web-1") == ["routing"]
        old = Credentials(new.path / "ca.crt", folder.path / "web-1.crt", folder.path / "web-1.key")
        (folder.path / "ca.crt").write_bytes(new.ca.certificate)
        assert await checks(address, new_web, "web-1") == ["routing"]
        with pytest.raises(RemoteError, match="it closes the connection"):
            await checks(address, old, "web-1")
