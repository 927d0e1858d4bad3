"""What a load balancer's data plane counts and explains, as messages of proto/gale/v1/api.proto."""

import ipaddress
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from gale.core.state import ClusterState
from gale.ports import Counters, Explanation, Question, Traffic
from gale.rpc.plain import plain
from gale.rpc.steps import in_steps
from gale.rpc.v1 import api_pb2 as pb

TRAFFIC = ("in_packets", "in_bytes", "out_packets", "out_bytes", "flows")


async def counters_to(address: str, time_ms: int, counters: Counters, state: ClusterState) -> pb.Counters:
    names = {node.number: name for name, node in state.nodes.items()}
    message = pb.Counters(address=address, time_ms=time_ms, verdicts=counters.verdicts)
    for service, traffic in counters.services.items():
        message.services[service].CopyFrom(traffic_to(traffic))
    async for number, traffic in in_steps(counters.nodes.items()):
        message.nodes[names.get(number, f"#{number}")].CopyFrom(traffic_to(traffic))
    return message


def traffic_to(traffic: Traffic) -> pb.Traffic:
    return pb.Traffic(**{name: getattr(traffic, name) for name in TRAFFIC})


def question_from(request: pb.ExplainRequest) -> Question:
    """Raises ValueError that says what is wrong."""
    try:
        source, destination = ipaddress.ip_address(request.source), ipaddress.ip_address(request.destination)
    except ValueError as error:
        raise ValueError(f"{error}: write e.g. 192.0.2.1 or 2001:db8::1") from None
    if source.version != destination.version:
        raise ValueError(f"{source} and {destination}: a packet has addresses of one IP version")
    for port in (request.source_port, request.destination_port):
        if not 1 <= port <= 65_535:
            raise ValueError(f"port {port}: 1 to 65535 is allowed")
    if request.protocol not in ("tcp", "udp"):
        raise ValueError(f"protocol {request.protocol!r}: tcp or udp is allowed")
    return Question(str(source), request.source_port, str(destination), request.destination_port, request.protocol)


def explanation_to(address: str, question: Question, answer: Explanation, state: ClusterState) -> pb.Explanation:
    message = pb.Explanation(
        address=address,
        opening=question.opening or answer.verdict == "opened",
        verdict=answer.verdict,
        action=answer.action,
        meaning=answer.meaning,
        side=answer.side,
        mode=answer.mode,
        service=answer.service,
        slot=answer.slot,
        flow=pb.FlowEntry(**asdict(answer.flow)) if answer.flow else None,
        interface=answer.interface,
    )
    if answer.node is not None:
        nodes = (node.info for node in state.nodes.values() if node.number == answer.node)
        if info := next(nodes, None):
            message.node, message.node_address = info.id, info.address
        else:
            message.node = f"#{answer.node}"
    for header in answer.headers:
        fields = [pb.Field(name=name, value=value) for name, value in header.fields.items()]
        message.headers.add(name=header.name, fields=fields)
    return message


def explanations_plain(messages: Iterable[pb.Explanation]) -> list[dict[str, Any]]:
    return [_explanation_plain(message) for message in messages]


def _explanation_plain(message: pb.Explanation) -> dict[str, Any]:
    told = plain(message)
    for header in told["headers"]:
        header["fields"] = {field["name"]: field["value"] for field in header["fields"]}
    return told
