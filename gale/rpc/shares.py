"""How the slots of services are shared out among nodes, as messages of proto/gale/v1/api.proto."""

import asyncio
from collections import Counter

from gale.core.shared import Service
from gale.core.state import ClusterState, Node
from gale.core.view import NO_NODE
from gale.rpc.steps import in_steps
from gale.rpc.v1 import api_pb2 as pb


async def services_to(state: ClusterState, name: str) -> list[pb.ServiceStatus]:
    """All of them, or the one with this name, that one with its nodes. In steps: there may be many slots."""
    found = []
    for service in state.shared.services:
        if name in ("", service.name):
            found.append(await _service(state, service, with_nodes=bool(name)))
            await asyncio.sleep(0)
    return found


async def _service(state: ClusterState, service: Service, with_nodes: bool) -> pb.ServiceStatus:
    held = _held(state, service)
    message = pb.ServiceStatus(
        name=service.name,
        mode=service.mode,
        port=service.port,
        target_port=service.target_port,
        addresses=service.addresses,
        protocols=service.protocols,
        tunnel=service.tunnel if service.mode == "l3" else "",
        slots=held.total(),
        orphans=held[NO_NODE],
        routing=len(state.weights(service.name)),
    )
    async for node in in_steps(_sorted(state)):
        if _takes_part(node, service):
            message.nodes += 1
            if with_nodes:
                message.shares.append(_share(node, service, held))
    return message


async def shares_of(state: ClusterState, node: Node) -> list[pb.Share]:
    """Of one node, in every service that it takes part in."""
    shares = []
    for service in state.shared.services:
        if _takes_part(node, service):
            shares.append(_share(node, service, _held(state, service)))
            await asyncio.sleep(0)
    return shares


def _held(state: ClusterState, service: Service) -> Counter[int]:
    """Number of a node -> its slots."""
    table = state.tables.get(service.name)
    return Counter(memoryview(table.owners).cast("H") if table else ())


def _sorted(state: ClusterState) -> list[Node]:
    return [state.nodes[name] for name in sorted(state.nodes)]


def _takes_part(node: Node, service: Service) -> bool:
    return not node.info.services or service.name in node.info.services


def _share(node: Node, service: Service, held: Counter[int]) -> pb.Share:
    return pb.Share(
        node=node.info.id,
        service=service.name,
        phase=node.phase.value,
        weight=node.weight,
        slots=held[node.number],
    )
