"""The parts of the state as messages of proto/gale/v1/state.proto, and back; what does not fit is a ValueError."""

import sys
from array import array

from gale.core import state as s
from gale.core.slots import SlotTable
from gale.rpc.codec import node_info_from, node_info_to, shared_from, shared_to
from gale.rpc.v1 import state_pb2 as pb

Entry = tuple[bytes, int, int]


class Parts:
    """A state that is being put together again, record by record, the head first."""

    def __init__(self) -> None:
        self._head: pb.SnapshotHead | None = None
        self._load_balancers: dict[str, s.LoadBalancer] = {}
        self._nodes: dict[str, s.Node] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._tables: dict[str, SlotTable] = {}
        self._transitions: list[s.Transition] = []

    def take(self, record: pb.SnapshotRecord) -> None:
        kind = record.WhichOneof("kind")
        if (kind == "head") != (self._head is None):
            raise ValueError("the head of a snapshot comes first, and once")
        match kind:
            case "head":
                self._head = record.head
            case "load_balancer":
                self._load_balancers[record.load_balancer.address] = load_balancer_from(record.load_balancer)
            case "nodes":
                for message in record.nodes.nodes:
                    self._take_node(node_from(message))
            case "table":
                self._tables[record.table.service] = table_from(record.table)
            case "transitions":
                self._transitions.extend(map(transition_from, record.transitions.transitions))
            case _:
                raise ValueError("a record of an unknown kind: is another load balancer newer than this one?")

    def whole(self) -> tuple[s.ClusterState, Entry, Entry]:
        head = self._head
        if head is None:
            raise ValueError("a snapshot without a head")
        reference = None
        if head.HasField("reference"):
            reference = s.Reference(shared_from(head.reference.shared), head.reference.enforced)
        state = s.ClusterState(
            clock_ms=head.clock_ms,
            generation=head.generation,
            reference=reference,
            load_balancers=self._load_balancers,
            nodes=self._nodes,
            addresses=self._addresses,
            tables=self._tables,
            transitions=tuple(self._transitions),
            leader=head.leader,
            members=tuple(head.members),
            proposers={proposer.name: (proposer.epoch, proposer.sequence) for proposer in head.proposers},
            forgotten_epoch=head.forgotten_epoch,
        )
        return state, _entry_from(head.before_last), _entry_from(head.last)

    def _take_node(self, node: s.Node) -> None:
        name = node.info.id
        self._nodes[name] = node
        for address in node.info.addresses:
            self._addresses[address] = tuple(sorted((*self._addresses.get(address, ()), name)))


def head_to(state: s.ClusterState, before_last: Entry, last: Entry) -> pb.SnapshotHead:
    reference = None
    if state.reference:
        reference = pb.Reference(shared=shared_to(state.reference.shared), enforced=state.reference.enforced)
    return pb.SnapshotHead(
        before_last=_entry_to(before_last),
        last=_entry_to(last),
        clock_ms=state.clock_ms,
        generation=state.generation,
        reference=reference,
        members=state.members,
        proposers=[
            pb.Proposer(name=name, epoch=epoch, sequence=sequence)
            for name, (epoch, sequence) in sorted(state.proposers.items())
        ],
        forgotten_epoch=state.forgotten_epoch,
        leader=state.leader,
    )


def _entry_to(entry: Entry) -> pb.SnapshotEntry:
    command, index, term = entry
    return pb.SnapshotEntry(command=command, index=index, term=term)


def _entry_from(message: pb.SnapshotEntry) -> Entry:
    return message.command, message.index, message.term


def load_balancer_to(load_balancer: s.LoadBalancer) -> pb.LoadBalancer:
    return pb.LoadBalancer(
        address=load_balancer.address,
        api=load_balancer.api,
        version=load_balancer.version,
        shared=shared_to(load_balancer.shared),
        alive=load_balancer.alive,
        members=load_balancer.members,
    )


def load_balancer_from(message: pb.LoadBalancer) -> s.LoadBalancer:
    shared, members = shared_from(message.shared), tuple(message.members)
    return s.LoadBalancer(message.address, message.api, message.version, shared, message.alive, members)


def node_to(node: s.Node) -> pb.Node:
    return pb.Node(
        info=node_info_to(node.info),
        number=node.number,
        phase=node.phase.value,
        since_ms=node.since_ms,
        checks=node.checks,
        fails=node.fails,
        banned_until_ms=node.banned_until_ms,
        drained=node.drained,
        ordered_weight=node.ordered_weight,
    )


def node_from(message: pb.Node) -> s.Node:
    return s.Node(
        info=node_info_from(message.info),
        number=message.number,
        phase=s.Phase(message.phase),
        since_ms=message.since_ms,
        checks=dict(message.checks),
        fails=message.fails,
        banned_until_ms=message.banned_until_ms if message.HasField("banned_until_ms") else None,
        drained=message.drained,
        ordered_weight=message.ordered_weight,
    )


def table_to(service: str, table: SlotTable) -> pb.SlotTable:
    return pb.SlotTable(service=service, owners=_little_endian(table.owners), previous=_little_endian(table.previous))


def table_from(message: pb.SlotTable) -> SlotTable:
    if len(message.owners) != len(message.previous):
        raise ValueError(f"a slot table of service {message.service} out of form")
    return SlotTable(_little_endian(message.owners), _little_endian(message.previous))


def transition_to(transition: s.Transition) -> pb.Transition:
    return pb.Transition(
        sequence=transition.sequence,
        time_ms=transition.time_ms,
        subject=transition.subject,
        before=transition.before,
        after=transition.after,
        cause=transition.cause,
        who=transition.who,
        index=transition.index,
    )


def transition_from(message: pb.Transition) -> s.Transition:
    return s.Transition(
        message.sequence,
        message.time_ms,
        message.subject,
        message.before,
        message.after,
        message.cause,
        message.who,
        message.index,
    )


def _little_endian(numbers: bytes) -> bytes:
    """16-bit numbers from host order to little-endian, or back."""
    swapped = array("H", numbers)
    if sys.byteorder == "big":
        swapped.byteswap()
    return swapped.tobytes()
