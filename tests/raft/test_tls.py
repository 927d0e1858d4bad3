"""Raft over mutual TLS: load balancers of this cluster are let in by their certificates, and nobody else is."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gale.core.hello import Hello
from gale.rpc import raft_codec
from gale.tls import Credentials, Role
from tests.raft.test_wire import closed, framed
from tests.raft.trio import Trio, announce, eventually, passed, trio
from tests.rpc.certificates import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "ours")


@pytest.fixture
async def cluster(tmp_path: Path, folder: Folder) -> AsyncIterator[Trio]:
    async with trio(tmp_path, credentials=folder.load_balancer()) as cluster:
        leader = await cluster.leader()
        await leader.propose(announce(str(leader.status().leader)))
        yield cluster


async def test_three_agree_over_tls(cluster: Trio) -> None:
    leader = await cluster.leader()
    await leader.propose(passed(str(leader.status().leader), "web", 1))
    await cluster.all_know("web")


def old_version(folder: Folder) -> ssl.SSLContext:
    context = folder.credentials("127.0.0.1").client_context()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(folder.path / "ca.crt")
    old.load_cert_chain(folder.path / "127.0.0.1.crt", folder.path / "127.0.0.1.key")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    return old


def without_certificate(folder: Folder) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder.path / "ca.crt")
    return context


def expired(folder: Folder) -> ssl.SSLContext:
    context = without_certificate(folder)
    with suppress(Exception):
        folder.issue(Role.LOAD_BALANCER, "127.0.0.9", age_days=500)
    context.load_cert_chain(folder.path / "127.0.0.9.crt", folder.path / "127.0.0.9.key")
    return context


STRANGERS: dict[str, Callable[[Folder, Folder], ssl.SSLContext | None]] = {
    "nothing but TCP": lambda folder, other: None,
    "no certificate": lambda folder, other: without_certificate(folder),
    "another authority's": lambda folder, other: trusting_anybody(other.issue(Role.LOAD_BALANCER, "127.0.0.1")),
    "a node's": lambda folder, other: folder.issue(Role.NODE, "web-1").client_context(),
    "an operator's": lambda folder, other: folder.issue(Role.OPERATOR, "eve").client_context(),
    "another load balancer's": lambda folder, other: folder.issue(Role.LOAD_BALANCER, "127.0.0.7").client_context(),
    "an expired one": lambda folder, other: expired(folder),
    "TLS 1.2": lambda folder, other: old_version(folder),
}


def trusting_anybody(credentials: Credentials) -> ssl.SSLContext:
    context = credentials.client_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("who", STRANGERS)
async def test_who_has_no_certificate_of_this_load_balancer_is_refused(
    cluster: Trio, folder: Folder, tmp_path: Path, who: str
) -> None:
    """Each says hello as a listed peer whose place is empty, from its address."""
    leader = await cluster.leader()
    victim, absent = (address for address in cluster.quorum if address != leader.status().leader)
    await cluster.stop(absent)
    before = cluster.running[victim].status()
    context = STRANGERS[who](folder, Folder(tmp_path / "theirs"))
    answer = b""
    with suppress(OSError):
        ip, _, port = victim.partition(":")
        reader, writer = await asyncio.open_connection(
            ip, int(port), ssl=context, server_hostname="127.0.0.1" if context else None
        )
        writer.write(framed(raft_codec.encode_hello(Hello(absent, tuple(sorted(cluster.quorum))))))
        answer = await closed(reader)
        writer.transport.abort()
    await eventually(lambda: cluster.running[victim].status().refused > before.refused)
    assert absent not in cluster.running[victim].status().connected
    assert answer == b"", "a hello tells the configuration: strangers do not hear it"
    assert cluster.running[victim].status().term == before.term


async def test_certificates_are_renewed_without_a_restart(cluster: Trio, folder: Folder) -> None:
    leader = await cluster.leader()
    folder.issue(Role.LOAD_BALANCER, "127.0.0.1")
    for address, streams in cluster.streams.items():
        if address != leader.status().leader:
            for stream in list(streams._open):
                stream.abort()
    await cluster.leader()
    await leader.propose(passed(str(leader.status().leader), "after", 1))
    await cluster.all_know("after")
