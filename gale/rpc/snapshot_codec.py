"""A snapshot as bytes and back (proto/gale/v1/state.proto), with a checksum before it.

What does not check out, or was written by a newer gale, is a ValueError: a snapshot is taken whole or not at all.
"""

import struct
import sys
import zlib
from array import array

from google.protobuf.message import DecodeError

from gale.core import state as s
from gale.core.slots import SlotTable
from gale.rpc.codec import node_info_from, node_info_to, shared_from, shared_to
from gale.rpc.v1 import state_pb2 as pb

VERSION = 1
CHECKSUM = struct.Struct("<I")

Entry = tuple[bytes, int, int]


def encode_snapshot(state: s.ClusterState, before_last: Entry, last: Entry) -> bytes:
    """`before_last` and `last`: the two newest applied entries of the log: (command, index, term)."""
    entries = [
        pb.SnapshotEntry(command=command, index=index, term=term) for command, index, term in (before_last, last)
    ]
    body = pb.Snapshot(version=VERSION, state=_state_to(state), before_last=entries[0], last=entries[1])
    packed = body.SerializeToString(deterministic=True)
    return CHECKSUM.pack(zlib.crc32(packed)) + packed


def decode_snapshot(packed: bytes) -> tuple[s.ClusterState, Entry, Entry]:
    """The state, and the entries before_last and last. Raises ValueError."""
    if len(packed) < CHECKSUM.size or CHECKSUM.unpack_from(packed)[0] != zlib.crc32(packed[CHECKSUM.size :]):
        raise ValueError("its checksum is wrong")
    try:
        body = pb.Snapshot.FromString(packed[CHECKSUM.size :])
    except DecodeError as error:
        raise ValueError("it is not a snapshot") from error
    if body.version != VERSION:
        raise ValueError(f"it is of version {body.version}, this gale reads {VERSION}")
    first, second = ((e.command, e.index, e.term) for e in (body.before_last, body.last))
    return _state_from(body.state), first, second


def _state_to(state: s.ClusterState) -> pb.State:
    reference = None
    if state.reference:
        reference = pb.Reference(shared=shared_to(state.reference.shared), enforced=state.reference.enforced)
    return pb.State(
        clock_ms=state.clock_ms,
        generation=state.generation,
        reference=reference,
        load_balancers=[
            pb.LoadBalancer(address=a, api=lb.api, version=lb.version, shared=shared_to(lb.shared), alive=lb.alive)
            for a, lb in sorted(state.load_balancers.items())
        ],
        nodes=[_node_to(node) for _, node in sorted(state.nodes.items())],
        tables=[
            pb.SlotTable(service=name, owners=_little_endian(table.owners), previous=_little_endian(table.previous))
            for name, table in sorted(state.tables.items())
        ],
        transitions=[
            pb.Transition(
                sequence=t.sequence, time_ms=t.time_ms, subject=t.subject, before=t.before, after=t.after, cause=t.cause
            )
            for t in state.transitions
        ],
    )


def _state_from(message: pb.State) -> s.ClusterState:
    reference = None
    if message.HasField("reference"):
        reference = s.Reference(shared_from(message.reference.shared), message.reference.enforced)
    nodes = [_node_from(node) for node in message.nodes]
    return s.ClusterState(
        clock_ms=message.clock_ms,
        generation=message.generation,
        reference=reference,
        load_balancers={
            lb.address: s.LoadBalancer(lb.address, lb.api, lb.version, shared_from(lb.shared), lb.alive)
            for lb in message.load_balancers
        },
        nodes={node.info.id: node for node in nodes},
        tables={
            table.service: SlotTable(_little_endian(table.owners), _little_endian(table.previous))
            for table in message.tables
        },
        transitions=tuple(
            s.Transition(t.sequence, t.time_ms, t.subject, t.before, t.after, t.cause) for t in message.transitions
        ),
    )


def _node_to(node: s.Node) -> pb.Node:
    return pb.Node(
        info=node_info_to(node.info),
        number=node.number,
        phase=node.phase.value,
        since_ms=node.since_ms,
        checks=node.checks,
        fails=node.fails,
        banned_until_ms=node.banned_until_ms,
        drained=node.drained,
    )


def _node_from(message: pb.Node) -> s.Node:
    return s.Node(
        info=node_info_from(message.info),
        number=message.number,
        phase=s.Phase(message.phase),
        since_ms=message.since_ms,
        checks=dict(message.checks),
        fails=message.fails,
        banned_until_ms=message.banned_until_ms if message.HasField("banned_until_ms") else None,
        drained=message.drained,
    )


def _little_endian(numbers: bytes) -> bytes:
    """16-bit numbers from host order to little-endian, or back."""
    swapped = array("H", numbers)
    if sys.byteorder == "big":
        swapped.byteswap()
    return swapped.tobytes()
