"""The wire under attack: what strangers and broken peers send does nothing but close their own connection."""

import asyncio
import functools
import io
import operator
import os
import pickle
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysyncobj import SyncObj

from gale.core.hello import Hello
from gale.raft.consensus import RaftConsensus
from gale.raft.replica import Replica
from gale.raft.transport import FRAME_MAX
from gale.rpc import raft_codec
from gale.rpc.v1 import raft_pb2 as pb
from tests.raft.trio import Trio, announce, eventually, trio


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


class Gadget:
    """Unpickled, it would call this."""

    def __init__(self, *call: object) -> None:
        self._call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self._call[0], self._call[1:]


def gadgets(mark: Path) -> list[bytes]:
    """Every way that is known to make of a pickle a call: each would leave `mark` behind."""
    python = f"__import__('os').mkdir({str(mark)!r})"
    calls: list[tuple[object, ...]] = [
        (os.mkdir, str(mark)),
        (os.system, f"mkdir {mark}"),
        (subprocess.Popen, ["mkdir", str(mark)]),
        (eval, python),
        (exec, python),
        (operator.methodcaller("mkdir"), mark),
        (functools.partial(os.mkdir, str(mark)),),
    ]
    made = [pickle.dumps(Gadget(*call), protocol) for call in calls for protocol in range(2, 6)]
    by_hand = [b"cos\nmkdir\n(V%s\ntR." % str(mark).encode(), b"(V%s\nios\nmkdir\n." % str(mark).encode()]
    return made + by_hand


def append(term: int = 1, **fields: object) -> bytes:
    return pb.RaftFrame(append_entries=pb.AppendEntries(term=term, sequence=1, **fields)).SerializeToString()  # type: ignore[arg-type]


def attacks(mark: Path, me: str) -> dict[str, list[bytes]]:
    """By name: the frames that an attacker sends, who may have said hello as a listed peer."""
    hello = framed(raft_codec.encode_hello(Hello(me)))
    gadget = pickle.dumps(Gadget(os.mkdir, str(mark)))
    entry = pb.Entry(kind=0, command=gadget, index=2, term=1)
    return {
        "silence": [],
        "a pickle in place of a hello": [framed(gadget)],
        "a pickle as the library would frame it": [struct.pack("i", len(gadget)) + gadget],
        "a frame of two gigabytes": [struct.pack(">I", 1 << 31)],
        "a frame just too long": [struct.pack(">I", FRAME_MAX + 1)],
        "no hello": [framed(append())],
        "two hellos": [hello, hello],
        "a hello of another protocol": [
            framed(pb.RaftFrame(hello=pb.Hello(protocol=9, address=me)).SerializeToString())
        ],
        "a hello of a stranger": [framed(raft_codec.encode_hello(Hello("127.0.0.1:1")))],
        "a pickle as an entry": [hello, framed(append(previous=pb.Position(index=1, term=0), entries=[entry]))],
        "a pickle as a snapshot": [hello, framed(append(part=pb.SnapshotPart(data=gadget, first=True, last=True)))],
        "a pickle to forward": [hello, framed(pb.RaftFrame(forward=pb.Forward(command=gadget)).SerializeToString())],
        "a membership entry": [
            hello,
            framed(append(previous=pb.Position(index=1), entries=[pb.Entry(kind=2, command=gadget, index=2)])),
        ],
        "a term beyond all bounds": [
            hello,
            framed(pb.RaftFrame(request_vote=pb.RequestVote(term=(1 << 64) - 1)).SerializeToString()),
        ],
        "a term far ahead": [
            hello,
            framed(pb.RaftFrame(request_vote=pb.RequestVote(term=1 << 40)).SerializeToString()),
        ],
        "garbage": [hello, framed(os.urandom(100_000))],
        "half a frame": [hello, struct.pack(">I", 1_000) + b"x"],
    }


NAMES = sorted(attacks(Path(), "127.0.0.1:1"))


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What still came until the other side closed, in good order or not."""
    received = b""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(4):
            while more := await reader.read(65_536):
                received += more
    return received


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Trio]:
    async with trio(tmp_path) as cluster:
        leader = await cluster.leader()
        await leader.propose(announce(str(leader.status().leader)))
        yield cluster


@pytest.mark.parametrize("name", NAMES)
async def test_an_attack_runs_nothing_and_changes_nothing(cluster: Trio, tmp_path: Path, name: str) -> None:
    leader = await cluster.leader()
    victim = next(address for address in cluster.quorum if address != leader.status().leader)
    before = leader.status()
    mark = tmp_path / "executed"
    # The attacker says it is the third load balancer, whose place is empty, and comes from its address.
    absent = next(a for a in cluster.quorum if a not in (victim, before.leader))
    await cluster.stop(absent)
    reader, writer = await asyncio.open_connection(*victim.split(":"))
    for part in attacks(mark, absent)[name]:
        writer.write(part)
    await closed(reader)
    writer.close()
    assert not mark.exists()
    await asyncio.sleep(0.2)  # a victim that runs code would need no longer
    assert not mark.exists()
    after = (await cluster.leader()).status()
    assert (after.leader, after.term) == (before.leader, before.term)
    assert (await leader.propose(announce(str(before.leader)))) is not None


async def test_an_unlisted_address_is_not_read(cluster: Trio) -> None:
    ip, _, port = cluster.quorum[0].partition(":")
    reader, writer = await asyncio.open_connection(ip, int(port), local_addr=("127.0.0.99", 0))
    writer.write(framed(raft_codec.encode_hello(Hello(cluster.quorum[1]))))
    assert await closed(reader) == b""
    writer.close()


async def test_two_hundred_idle_connections_do_not_keep_a_peer_out(cluster: Trio) -> None:
    leader = await cluster.leader()
    victim = next(address for address in cluster.quorum if address != leader.status().leader)
    idle = [await asyncio.open_connection(*victim.split(":")) for _ in range(200)]
    await cluster.stop(victim)
    again = await cluster.start(victim)
    await eventually(lambda: again.status().quorum)
    for _, writer in idle:
        writer.close()


def test_the_librarys_loaders_refuse(tmp_path: Path) -> None:
    for number, gadget in enumerate(gadgets(tmp_path / "armed")):
        with suppress(OSError):
            (tmp_path / "armed").rmdir()
        armed = pickle.loads(gadget)
        if isinstance(armed, subprocess.Popen):
            armed.wait()
        assert (tmp_path / "armed").exists(), f"gadget {number} does nothing: it proves nothing"
    for gadget in gadgets(tmp_path / "executed"):
        for load in (pysyncobj.pickle.loads, pysyncobj.journal.loads):
            with pytest.raises(ValueError, match="unpickles nothing"):
                load(gadget)
        with pytest.raises(ValueError, match="unpickles nothing"):
            pysyncobj.pickle.load(io.BytesIO(gadget))
    assert not (tmp_path / "executed").exists()


async def test_no_gadget_runs_wherever_a_peer_can_put_bytes(cluster: Trio, tmp_path: Path) -> None:
    """As an entry, as a snapshot, forwarded, and in place of a frame, by a listed peer."""
    leader = await cluster.leader()
    victim, absent = (address for address in cluster.quorum if address != leader.status().leader)
    await cluster.stop(absent)
    mark = tmp_path / "executed"
    hello = framed(raft_codec.encode_hello(Hello(absent, tuple(sorted(cluster.quorum)))))
    for gadget in gadgets(mark):
        entry = pb.Entry(kind=0, command=gadget, index=2, term=1)
        for frame in (
            append(previous=pb.Position(index=1, term=0), entries=[entry]),
            append(part=pb.SnapshotPart(data=gadget, first=True, last=True)),
            pb.RaftFrame(forward=pb.Forward(command=b"\0" + gadget)).SerializeToString(),
            gadget,
        ):
            _, writer = await asyncio.open_connection(*victim.split(":"))
            writer.write(hello + framed(frame))
            await writer.drain()
            writer.close()
    await asyncio.sleep(0.3)
    assert not mark.exists()
    assert (await leader.propose(announce(str(leader.status().leader)))) is not None


def test_the_names_we_rely_on_exist() -> None:
    for name in ("applyLogEntries", "doApplyCommand", "parseChangeClusterRequest", "loadDumpFile"):
        private = f"_SyncObj__{name}"
        assert getattr(Replica, private) is not getattr(SyncObj, private)
    assert hasattr(SyncObj, "_SyncObj__setState")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(frame: bytes) -> None:
    try:
        message = raft_codec.decode(frame)
    except ValueError:
        return
    assert raft_codec.decode(raft_codec.encode(message)) == message


async def test_a_proposal_from_a_follower_is_committed_in_a_few_milliseconds(cluster: Trio) -> None:
    leader = await cluster.leader()
    follower: RaftConsensus = next(r for a, r in cluster.running.items() if a != leader.status().leader)
    loop, took = asyncio.get_running_loop(), []
    for _ in range(50):
        began = loop.time()
        await follower.propose(announce(str(leader.status().leader)))
        took.append(loop.time() - began)
    assert sorted(took)[25] < 0.05, "the library's own batches take 0.1 s and more"


async def test_connections_that_are_reset_at_once_close_no_door(cluster: Trio) -> None:
    leader = await cluster.leader()
    victim, other = (address for address in cluster.quorum if address != leader.status().leader)
    ip, _, port = victim.partition(":")
    for _ in range(50):
        with socket.socket() as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.connect((ip, int(port)))
    await cluster.stop(other)
    again = await cluster.start(other)
    await eventually(lambda: {victim, other} <= again.status().connected)
