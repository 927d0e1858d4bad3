"""Signs of life beside the streams: what they are worth, what they are not, and whose they are."""

import asyncio
import socket
from pathlib import Path

import pytest
from pysyncobj.node import Node

from gale.errors import HostError
from gale.raft.signs import KEY_BYTES, SIZE, Sign, opened, sealed
from gale.raft.transport import Peer, PeerTransport, _stands_still
from gale.raft.udp import Datagrams
from tests.raft.trio import Trio, announce, eventually, free_addresses, passed, trio

HERS, HIS = b"h" * KEY_BYTES, b"i" * KEY_BYTES
SIGNS = (Sign(True, 7, 1_000_000), Sign(False, (1 << 48) - 1, 0), Sign(True, 7, 1, True), Sign(False, 7, 1, True))


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_is_read_by_whom_it_is_for_and_by_nobody_else(sign: Sign) -> None:
    datagram = sealed(HERS + HIS, sign)
    assert len(datagram) == SIZE
    assert opened(HERS + HIS, datagram) == sign
    assert opened(HIS + HERS, datagram) is None, "sent back to who sent it"
    assert opened(HERS + HERS, datagram) is None, "of an earlier start"


def test_a_sign_with_any_bit_changed_is_none() -> None:
    datagram = sealed(HERS + HIS, SIGNS[0])
    for bit in range(8 * SIZE):
        changed = bytearray(datagram)
        changed[bit // 8] ^= 1 << bit % 8
        assert opened(HERS + HIS, bytes(changed)) is None
    for size in range(SIZE):
        assert opened(HERS + HIS, datagram[:size]) is None
    assert opened(HERS + HIS, datagram + b"x") is None


def leading(cluster: Trio) -> tuple[str | None, int]:
    return cluster._agreed(), max(consensus.status().term for consensus in cluster.running.values())


async def streams_stand_still(cluster: Trio, for_s: float) -> None:
    for streams in cluster.streams.values():
        streams.still = True
    await asyncio.sleep(for_s)
    for streams in cluster.streams.values():
        streams.still = False


async def test_streams_that_stand_still_for_two_seconds_depose_nobody(tmp_path: Path) -> None:
    """As they do where packets are lost; and what waited arrives."""
    async with trio(tmp_path) as cluster:
        await cluster.leader()
        before = leading(cluster)
        order = asyncio.create_task(cluster.running[cluster.quorum[0]].propose(announce(cluster.quorum[0])))
        await streams_stand_still(cluster, 1.5)
        assert leading(cluster) == before
        await order
        await streams_stand_still(cluster, 2.0)
        await cluster.running[cluster.quorum[1]].propose(passed(cluster.quorum[0], "web", 1))
        await cluster.all_know("web")
        assert leading(cluster) == before


async def test_a_stream_that_stands_still_in_one_direction_is_replaced_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its reader can see it, who dials nobody here: peers with the higher address dial. And long before it would
    be given up."""
    monkeypatch.setattr("gale.raft.transport.STUCK_S", 60.0)
    async with trio(tmp_path) as cluster:
        await cluster.leader()
        before, deaf = leading(cluster), min(cluster.quorum)
        transport = cluster.running[deaf]._replica.transport
        stuck = {address: peer.stream for address, peer in transport._peers.items()}
        for stream in stuck.values():
            stream.stuck = True  # type: ignore[union-attr]
        await eventually(
            lambda: all(transport._peers[each].stream not in (old, None) for each, old in stuck.items()), 8.0
        )
        assert leading(cluster) == before


@pytest.mark.parametrize(
    ("deaf", "framed_s", "now_s", "still"),
    [(False, 19.0, 19.5, False), (False, 19.0, 20.5, True), (True, 10.2, 10.5, False), (True, 19.0, 19.5, True)],
)
def test_who_hears_nothing_by_a_stream_that_has_just_begun_means_the_one_before(
    deaf: bool, framed_s: float, now_s: float, still: bool
) -> None:
    peer = Peer(Node("10.0.0.1:9090"), joined_s=10.0, framed_s=framed_s, deaf=deaf)
    assert _stands_still(peer, now_s) is still


async def test_signs_alone_keep_no_leader_that_no_stream_reaches(tmp_path: Path) -> None:
    """A network that carries datagrams and no connections any more is a broken one."""
    async with trio(tmp_path) as cluster:
        first = (await cluster.leader())._me
        cluster.streams[first].still = True
        others = [consensus for address, consensus in cluster.running.items() if address != first]
        await eventually(lambda: {other.status().leader for other in others} - {first, None} != set(), within_s=8)
        cluster.streams[first].still = False
        await cluster.leader()


def keep_copies(transport: PeerTransport, sender: str, copies: list[bytes]) -> None:
    def copying(address: str, datagram: bytes) -> None:
        if address == sender:
            copies.append(datagram)
        transport._heard(address, datagram)

    transport._streams._datagrams.serve(copying)  # type: ignore[attr-defined]


async def test_copies_of_a_dead_leaders_signs_delay_no_election(tmp_path: Path) -> None:
    async with trio(tmp_path) as cluster:
        first = (await cluster.leader())._me
        term = cluster.running[first].status().term
        others = [address for address in cluster.quorum if address != first]
        copies: dict[str, list[bytes]] = {address: [] for address in others}
        for address in others:
            keep_copies(cluster.running[address]._replica.transport, first, copies[address])
        await eventually(lambda: all(len(copied) > 5 for copied in copies.values()))
        await cluster.kill(first)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while cluster._agreed() is None:
            for address, copied in copies.items():
                for datagram in copied[-5:]:
                    cluster.running[address]._replica.transport._heard(first, datagram)
            await asyncio.sleep(0.01)
            assert loop.time() - began < 8.0
        assert leading(cluster)[1] > term


async def test_a_full_disk_follows_nobody(tmp_path: Path) -> None:
    """A leader whose followers can write nothing has no majority, however well they hear it."""
    async with trio(tmp_path) as cluster:
        first = (await cluster.leader())._me
        replica = next(consensus for address, consensus in cluster.running.items() if address != first)._replica
        node = next(peer for peer in replica.otherNodes if str(peer.id) == first)
        assert replica.take_question(node, replica.term)
        assert not replica.take_question(node, replica.term - 1)
        assert not replica.take_question(node, replica.term + 1)
        replica.journal._disk._failing.add("journal")
        assert not replica.take_question(node, replica.term)
        replica.journal._disk._failing.discard("journal")


async def test_the_kernel_drops_what_is_from_no_peer() -> None:
    me, peer, stranger = free_addresses(3)
    heard: list[tuple[str, bytes]] = []
    ours, theirs = Datagrams(me, [peer]), Datagrams(peer, [me])
    ours.serve(lambda sender, datagram: heard.append((sender, datagram)))
    ip, _, port = me.rpartition(":")
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", int(stranger.rpartition(":")[2])))
        other.sendto(b"from a stranger", (ip, int(port)))
        theirs.send(me, b"from a peer")
        await eventually(lambda: bool(heard))
    assert heard == [(peer, b"from a peer")]
    theirs.close()
    ours.send(peer, b"to nobody")  # and what the kernel says of it ends nothing
    ours.send(peer, b"to nobody")
    await asyncio.sleep(0.05)
    ours.close()


def test_a_port_that_is_taken_is_an_error_in_one_line() -> None:
    me, peer = free_addresses(2)
    ip, _, port = me.rpartition(":")
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((ip, int(port)))
        with pytest.raises(HostError, match=rf"the UDP port of {me}: Address already in use"):
            Datagrams(me, [peer])
