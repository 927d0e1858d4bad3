"""The nodes' HTTP server and the traffic generator, against each other and against odd clients."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gale.lab.flows import Round
from gale.lab.tally import Sample
from gale.lab.traffic import parse

TIMEOUT_S = 10


@contextmanager
def running_server() -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A server in a process of its own; its port, and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "gale.lab.server",
        "--name",
        "node-7",
        "--address",
        "127.0.0.1",
        "--port",
        str(port),
        "--udp",
    ]
    process = subprocess.Popen(command)
    try:
        for _ in range(200):
            with socket.socket() as client:
                client.settimeout(0.05)
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield port, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running_server() as (number, _):
        yield number


def exchange(port: int, sent: bytes) -> bytes:
    """Everything the server answers until it closes; an open connection fails the test by its timeout."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        client.sendall(sent)
        received = b""
        while part := client.recv(65536):
            received += part
        return received


def test_a_closing_get(port: int) -> None:
    answer = exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    header, _, body = answer.partition(b"\r\n\r\n")
    assert header.startswith(b"HTTP/1.1 200 OK")
    assert b"Content-Length: 7" in header
    assert b"Connection: close" in header
    assert body == b"node-7\n"


def test_http_1_0_closes_unless_asked(port: int) -> None:
    assert exchange(port, b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nnode-7\n")


def test_head_has_a_length_and_no_body(port: int) -> None:
    answer = exchange(port, b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert b"Content-Length: 7" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_requests_on_one_connection_are_answered_in_order(port: int) -> None:
    answer = exchange(port, b"GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nconnection: Close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"node-7\n") == 2
    assert answer.count(b"Connection: keep-alive") == 2


def test_a_request_in_pieces(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        for part in (b"GET / HT", b"TP/1.1\r\n", b"\r", b"\n"):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(part)
        assert client.recv(65536).endswith(b"node-7\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"POST / HTTP/1.1\r\n\r\n", b"405"), (b"nonsense\r\n\r\n", b"405"), (b"GET /" + b"x" * 20_000, b"431")],
)
def test_what_is_no_request_is_refused_and_closed(port: int, sent: bytes, status: bytes) -> None:
    assert exchange(port, sent).startswith(b"HTTP/1.1 " + status)


def test_a_path_is_said_back_and_bytes_are_as_many_as_asked_for(port: int) -> None:
    assert exchange(port, b"GET /word HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nnode-7 word\n")
    assert exchange(port, b"GET /bytes/100000 HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n" + bytes(100_000))


def test_an_upload_is_counted_however_it_is_cut_and_what_follows_is_the_next_request(port: int) -> None:
    put = b"PUT /up HTTP/1.1\r\nContent-Length: 6\r\n\r\n"
    last = b"GET / HTTP/1.0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        for part in (put + b"abc", b"def" + put + b"ghijkl" + put, b"mnopqr" + last):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(part)
        received = b""
        while part := client.recv(65536):
            received += part
    assert received.count(b"node-7 6\n") == 3
    assert received.endswith(b"\r\n\r\nnode-7\n")


def test_a_datagram_is_answered_from_where_it_was_sent_to(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", port))
        client.send(b"some words")
        assert client.recv(99) == b"node-7 some words"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_flows_are_asked_again_and_what_breaks_is_told_once(protocol: str) -> None:
    with running_server() as (port, server):
        words = ["--at", f"127.0.0.1:{port}", "--flows", "5", "--interval", "0.1", "--protocol", protocol]
        command = [sys.executable, "-m", "gale.lab.flows", *words]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            before = [Round.from_json(json.loads(process.stdout.readline())) for _ in range(2)]
            server.kill()
            after = [Round.from_json(json.loads(process.stdout.readline())) for _ in range(3)]
            process.stdin.close()
            assert process.wait(TIMEOUT_S) == 0
    assert [(r.opened, r.alive, r.crossed, r.moved, r.nodes) for r in before] == [(5, 5, 0, 0, {"node-7": 5})] * 2
    assert after[-1].alive == 0
    broken = [broken for round_ in [*before, *after] for broken in round_.broken]
    assert [broken.node for broken in broken] == ["node-7"] * 5


def test_sigterm_lets_a_request_that_has_begun_be_answered() -> None:
    with running_server() as (port, process), socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        idle = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        client.sendall(b"GET / HTTP/1.1\r\n")
        exchange(port, b"HEAD / HTTP/1.0\r\n\r\n")  # by now the first bytes have been read
        process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        idle.close()
        client.sendall(b"\r\n")
        assert client.recv(65536).endswith(b"node-7\n")
        assert client.recv(1) == b""
        assert process.wait(TIMEOUT_S) == 0


def generate(*arguments: str, stdin: int | None = None) -> list[Sample]:
    """What the generator prints in a run."""
    command = [sys.executable, "-m", "gale.lab.traffic", "--interval", "0.1", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        if stdin == subprocess.DEVNULL and process.stdin:
            process.stdin.close()
        lines += process.stdout.readlines()
        assert process.wait(TIMEOUT_S) == 0
    return [Sample.from_json(json.loads(text)) for text in lines]


def test_the_generator_counts_answers_and_failures_per_endpoint(port: int) -> None:
    good, bad = f"127.0.0.1:{port}", "127.0.0.1:1"
    *samples, final = generate("--endpoints", f"{good},{bad}", "--rate", "200", "--duration", "0.5")
    assert final.final
    assert final.endpoints[good].nodes.keys() == {"node-7"}
    assert 5 <= final.endpoints[good].ok <= 120
    assert final.endpoints[good].failed == 0
    assert final.endpoints[bad].ok == 0
    assert final.endpoints[bad].failures.keys() == {"refused"}
    assert sum(sample.total.ok for sample in samples) == final.total.ok
    assert sum(sample.total.failed for sample in samples) == final.total.failed


def test_kept_connections_lose_no_request_to_a_server_that_ends() -> None:
    """It says with its last answers that it ends them."""
    with running_server() as (port, process):
        words = ["--endpoints", f"127.0.0.1:{port}", "--rate", "100", "--concurrency", "4", "--keep"]
        command = [sys.executable, "-m", "gale.lab.traffic", "--interval", "0.1", *words]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as generator:
            assert generator.stdin is not None
            assert generator.stdout is not None
            before = [Sample.from_json(json.loads(generator.stdout.readline())) for _ in range(3)]
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0
            generator.stdin.close()
            final = Sample.from_json(json.loads(generator.stdout.readlines()[-1]))
    assert before[-1].total.ok
    assert final.total.ok > sum(sample.total.ok for sample in before)
    assert set(final.total.failures) <= {"refused"}, final.total.failures


def test_the_generator_ends_with_its_standard_input(port: int) -> None:
    *samples, final = generate("--endpoints", f"127.0.0.1:{port}", "--duration", "60", stdin=subprocess.DEVNULL)
    assert len(samples) < 100
    assert final.final


async def test_an_answer_that_never_ends_and_one_that_is_cut_are_failures() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nnod")
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    cut_port = server.sockets[0].getsockname()[1]
    final = (await asyncio.to_thread(generate, "--endpoints", f"127.0.0.1:{cut_port}", "--duration", "0.3"))[-1]
    server.close()
    assert final.total.ok == 0
    assert final.total.failures.keys() == {"closed"}


def test_the_generator_has_bounds_unless_told() -> None:
    plan = parse(["--endpoints", "a:1,b:2"])
    assert plan.endpoints == ("a:1", "b:2")
    assert plan.duration_s == 600
    assert parse(plan.arguments()) == plan
