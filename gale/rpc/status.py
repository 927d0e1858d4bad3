"""The cluster's status: one load balancer's copy of the state, and what each load balancer says of itself.

A pure composition, so that any load balancer can answer for the cluster, with or without a quorum: what it could not
ask is told as such.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from gale.core.state import ClusterState, Node
from gale.ports import LocalStatus
from gale.rpc.steps import in_steps
from gale.rpc.v1 import api_pb2 as pb

REASONS_MAX, REASON_MAX = 1_000, 200
"""How many nodes' reasons one load balancer tells, and how much of each."""


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
        learner=consensus.learner,
        ignored=consensus.ignored,
        differs=consensus.differs,
        refused=min(consensus.refused, 0xFFFF_FFFF),
        degraded=local.degraded,
        not_serving={name: local.not_serving[name][:REASON_MAX] for name in sorted(local.not_serving)[:REASONS_MAX]},
    )


async def cluster_status(
    state: ClusterState,
    asked: pb.LocalStatus,
    others: Mapping[str, pb.LocalStatus | str],
) -> pb.ClusterStatus:
    """`others`: quorum address -> what that load balancer says of itself, or why it said nothing."""
    told = dict[str, str]()
    answers = [asked, *(answer for answer in others.values() if isinstance(answer, pb.LocalStatus))]
    for answer in sorted(answers, key=lambda answer: answer.address):
        told.update(answer.not_serving)  # whoever is asked says the same
    load_balancers = [_own(state, asked, others), *(_other(state, asked, *other) for other in others.items())]
    status = pb.ClusterStatus(
        leader=asked.leader if asked.HasField("leader") else None,
        term=asked.term,
        quorum=asked.quorum,
        generation=state.generation,
        load_balancers=sorted(load_balancers, key=lambda load_balancer: load_balancer.address),
        applied_index=asked.applied_index,
        degraded=asked.degraded,
    )
    async for name in in_steps(sorted(state.nodes)):
        status.nodes.append(node_status(state.nodes[name], state, told.get(name, "")))
    return status


def _own(
    state: ClusterState, asked: pb.LocalStatus, others: Mapping[str, pb.LocalStatus | str]
) -> pb.LoadBalancerStatus:
    """The one that was asked is ignored when most of the others say so; the difference is told from its own side."""
    by = {
        address: asked.ignored.get(address) or answer.ignored[asked.address]
        for address, answer in sorted(others.items())
        if isinstance(answer, pb.LocalStatus) and asked.address in answer.ignored
    }
    if 2 * len(by) > 1 + len(others):
        return _answering(asked, "ignored", f"{', '.join(by)} ignore it: {next(iter(by.values()))}")
    return _agreeing(state, asked, asked)


def _other(
    state: ClusterState, asked: pb.LocalStatus, address: str, answer: pb.LocalStatus | str
) -> pb.LoadBalancerStatus:
    """The load balancers know of each other's configurations by their handshake, and so at once."""
    why = asked.ignored.get(address)
    if isinstance(answer, pb.LocalStatus):
        if why:
            return _answering(answer, "ignored", why)
        return _agreeing(state, asked, answer)
    status = pb.LoadBalancerStatus(address=address, role="ignored" if why else "unreachable", reason=why or answer)
    if known := state.load_balancers.get(address):
        status.config_hash, status.version = known.shared.hash, known.version
    return status


def _agreeing(state: ClusterState, asked: pb.LocalStatus, answer: pb.LocalStatus) -> pb.LoadBalancerStatus:
    """No word of the handshake keeps it out; the state may, which knows what each has announced."""
    leads = asked.HasField("leader") and asked.leader == answer.address
    role = "leader" if leads else "learner" if answer.learner else "follower"
    if state.ignored(answer.address):
        role = "ignored"
    reason = ""
    if difference := asked.differs.get(answer.address):
        reason = f"its configuration differs: {difference}"
    elif difference := state.differs(answer.address):
        reason = f"its configuration differs from the reference: {difference}"
    return _answering(answer, role, reason)


def _answering(answer: pb.LocalStatus, role: str, reason: str) -> pb.LoadBalancerStatus:
    return pb.LoadBalancerStatus(
        address=answer.address,
        role=role,
        applied_index=answer.applied_index,
        generation=answer.generation,
        config_hash=answer.config_hash,
        version=answer.version,
        reason=reason,
        degraded=answer.degraded,
        refused=answer.refused,
        attachments=answer.attachments,
    )


def node_status(node: Node, state: ClusterState, not_serving: str = "") -> pb.NodeStatus:
    until_ms = node.banned_until_ms
    reasons = (not_serving and f"does not serve: {not_serving}", node.stopping, node.info.lacks(state.shared.services))
    return pb.NodeStatus(
        id=node.info.id,
        address=node.info.address,
        phase=node.phase.value,
        checks=node.checks,
        fails=node.fails,
        banned_until=_rfc3339(until_ms) if until_ms else None,
        weight=node.weight,
        drained=node.drained,
        reason="; ".join(filter(None, reasons)),
        address6=node.info.address6,
        services=node.info.services,
        since=_rfc3339(node.since_ms),
    )


def _rfc3339(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")
