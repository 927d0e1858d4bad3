"""The cluster's status: one load balancer's copy of the state, and what each load balancer says of itself.

A pure composition, so that any load balancer can answer for the cluster, with or without a quorum: what it could not
ask is told as such.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from gale.core.state import ClusterState, Node
from gale.ports import LocalStatus
from gale.rpc.v1 import api_pb2 as pb


def local_status(local: LocalStatus) -> pb.LocalStatus:
    consensus = local.consensus
    return pb.LocalStatus(
        address=local.address,
        leader=consensus.leader,
        term=consensus.term,
        quorum=consensus.quorum,
        applied_index=consensus.applied_index,
        generation=local.generation,
        config_hash=local.config_hash,
        version=local.version,
        verdicts=local.verdicts,
        attachments=local.attachments,
    )


def cluster_status(
    state: ClusterState,
    asked: pb.LocalStatus,
    others: Mapping[str, pb.LocalStatus | str],
) -> pb.ClusterStatus:
    """`others`: quorum address -> what that load balancer says of itself, or why it said nothing."""
    leader = asked.leader if asked.HasField("leader") else None
    answers = {**others, asked.address: asked}
    return pb.ClusterStatus(
        leader=leader,
        term=asked.term,
        quorum=asked.quorum,
        generation=state.generation,
        load_balancers=[_load_balancer(state, address, answers[address], leader) for address in sorted(answers)],
        nodes=[_node(node) for _, node in sorted(state.nodes.items())],
    )


def _load_balancer(
    state: ClusterState, address: str, answer: pb.LocalStatus | str, leader: str | None
) -> pb.LoadBalancerStatus:
    known = state.load_balancers.get(address)
    if isinstance(answer, str):
        status = pb.LoadBalancerStatus(address=address, role="unreachable", reason=answer)
        if known:
            status.config_hash, status.version = known.shared.hash, known.version
        return status
    role = "leader" if address == leader else "follower"
    reason = ""
    if difference := state.differs(address):
        role = "ignored" if state.ignored(address) else role
        reason = f"its configuration differs from the reference: {difference}"
    return pb.LoadBalancerStatus(
        address=address,
        role=role,
        applied_index=answer.applied_index,
        generation=answer.generation,
        config_hash=answer.config_hash,
        version=answer.version,
        reason=reason,
    )


def _node(node: Node) -> pb.NodeStatus:
    until_ms = node.banned_until_ms
    return pb.NodeStatus(
        id=node.info.id,
        address=node.info.address,
        phase=node.phase.value,
        checks=node.checks,
        fails=node.fails,
        banned_until=datetime.fromtimestamp(until_ms / 1000, UTC).isoformat(timespec="seconds") if until_ms else None,
        weight=node.info.weight,
    )
