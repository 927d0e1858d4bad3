"""Proposals of the log as bytes (proto/gale/v1/state.proto), and back; what does not fit is a ValueError."""

from google.protobuf.message import DecodeError

from gale.core import commands as c
from gale.core.shared import HealthPolicy, Service, SharedConfig
from gale.core.state import NodeInfo
from gale.rpc.v1 import state_pb2 as pb


def encode(proposal: c.Proposal) -> bytes:
    origin = proposal.origin
    message = pb.Proposal(
        proposer=origin.proposer,
        epoch=origin.epoch,
        sequence=origin.sequence,
        command=_command_to(proposal.command),
    )
    return message.SerializeToString(deterministic=True)


def decode(payload: bytes) -> c.Proposal:
    try:
        message = pb.Proposal.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"not a proposal: {error}") from error
    return c.Proposal(c.Origin(message.proposer, message.epoch, message.sequence), _command_from(message.command))


def _command_to(command: c.Command) -> pb.Command:
    message = pb.Command(time_ms=command.time_ms)
    match command:
        case c.Report(_, load_balancer, observations):
            message.report.load_balancer = load_balancer
            message.report.observations.extend(_observation_to(o) for o in observations)
        case c.Announce():
            message.announce.CopyFrom(
                pb.Announce(
                    load_balancer=command.load_balancer,
                    api=command.api,
                    version=command.version,
                    shared=shared_to(command.shared),
                    enforces=command.enforces,
                    leads=command.leads,
                    members=command.members,
                )
            )
        case c.SetAlive(_, load_balancer, alive):
            message.set_alive.CopyFrom(pb.SetAlive(load_balancer=load_balancer, alive=alive))
        case c.LiftBans():
            message.lift_bans.SetInParent()
        case c.Barrier():
            message.barrier.SetInParent()
        case c.Drain() | c.Ban() | c.Unban() | c.SetWeight() | c.HandOver() | c.Noted():
            _put_order(message, command)
    return message


def _put_order(message: pb.Command, order: c.Order) -> None:
    if order.given != c.Given():
        message.given.CopyFrom(pb.Given(who=order.given.who, why=order.given.why))
    match order:
        case c.Drain(_, node, on):
            message.drain.CopyFrom(pb.Drain(node=node, on=on))
        case c.Ban(_, node, for_ms):
            message.ban.CopyFrom(pb.Ban(node=node, for_ms=for_ms))
        case c.Unban(_, node):
            message.unban.CopyFrom(pb.Unban(node=node))
        case c.SetWeight(_, node, weight):
            message.set_weight.CopyFrom(pb.SetWeight(node=node, weight=weight))
        case c.HandOver(_, to):
            message.hand_over.CopyFrom(pb.HandOver(to=to))
        case c.Noted(_, subject, before, after, cause):
            message.noted.CopyFrom(pb.Noted(subject=subject, before=before, after=after, cause=cause))


def _command_from(message: pb.Command) -> c.Command:
    time_ms = message.time_ms
    match message.WhichOneof("kind"):
        case "report":
            report = message.report
            return c.Report(time_ms, report.load_balancer, tuple(map(_observation_from, report.observations)))
        case "announce":
            a = message.announce
            return c.Announce(
                time_ms,
                a.load_balancer,
                a.api,
                a.version,
                shared_from(a.shared),
                a.enforces,
                a.leads,
                tuple(a.members),
            )
        case "set_alive":
            return c.SetAlive(time_ms, message.set_alive.load_balancer, message.set_alive.alive)
        case "lift_bans":
            return c.LiftBans(time_ms)
        case "barrier":
            return c.Barrier(time_ms)
        case "drain":
            return c.Drain(time_ms, message.drain.node, message.drain.on, _given(message))
        case "ban":
            return c.Ban(time_ms, message.ban.node, message.ban.for_ms, _given(message))
        case "unban":
            return c.Unban(time_ms, message.unban.node, _given(message))
        case "set_weight":
            return c.SetWeight(time_ms, message.set_weight.node, message.set_weight.weight, _given(message))
        case "hand_over":
            return c.HandOver(time_ms, message.hand_over.to, _given(message))
        case "noted":
            n = message.noted
            return c.Noted(time_ms, n.subject, n.before, n.after, n.cause, _given(message))
    raise ValueError("a command of an unknown kind: is another load balancer newer than this one?")


def _given(message: pb.Command) -> c.Given:
    return c.Given(message.given.who, message.given.why)


def _observation_to(observation: c.Observation) -> pb.Observation:
    match observation:
        case c.Passed(node, count):
            return pb.Observation(passed=pb.Passed(node=node_info_to(node), count=count))
        case c.Missed(name):
            return pb.Observation(missed=name)
        case c.NotServing(name):
            return pb.Observation(not_serving=name)
        case c.Goodbye(name):
            return pb.Observation(goodbye=name)


def _observation_from(message: pb.Observation) -> c.Observation:
    match message.WhichOneof("kind"):
        case "passed":
            return c.Passed(node_info_from(message.passed.node), message.passed.count)
        case "missed":
            return c.Missed(message.missed)
        case "not_serving":
            return c.NotServing(message.not_serving)
        case "goodbye":
            return c.Goodbye(message.goodbye)
    raise ValueError("an observation of an unknown kind: is another load balancer newer than this one?")


def node_info_to(node: NodeInfo) -> pb.NodeInfo:
    return pb.NodeInfo(
        id=node.id,
        address=node.address,
        weight=node.weight,
        services=node.services,
        reports_to=node.reports_to,
        address6=node.address6,
        leaving=node.leaving,
    )


def node_info_from(message: pb.NodeInfo) -> NodeInfo:
    services = tuple(message.services)
    return NodeInfo(
        message.id, message.address, message.weight, services, message.reports_to, message.address6, message.leaving
    )


def shared_to(shared: SharedConfig) -> pb.SharedConfig:
    health = shared.health
    return pb.SharedConfig(
        checks_before_routing=health.checks_before_routing,
        checks_timeout_ms=health.checks_timeout_ms,
        black_list_after_fails=health.black_list_after_fails,
        black_list_expiry_ms=health.black_list_expiry_ms,
        services=[
            pb.Service(
                name=service.name,
                port=service.port,
                target_port=service.target_port,
                addresses=service.addresses,
                protocols=service.protocols,
                mode=service.mode,
                tunnel=service.tunnel,
            )
            for service in shared.services
        ],
    )


def shared_from(message: pb.SharedConfig) -> SharedConfig:
    health = HealthPolicy(
        message.checks_before_routing,
        message.checks_timeout_ms,
        message.black_list_after_fails,
        message.black_list_expiry_ms,
    )
    services = tuple(
        Service(s.name, s.port, s.target_port, tuple(s.addresses), tuple(s.protocols), s.mode, s.tunnel or "ipv4")
        for s in message.services
    )
    return SharedConfig(health, services)
