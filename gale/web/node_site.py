"""What a node answers at which path. All of it can only be read, by whoever reaches the address, and it is plain HTTP
everywhere: a node's certificate is a client's, which no caller would take for a server's.

/metrics   for Prometheus
/healthz   200 as long as the loop turns: what a supervisor asks that would start gale-node anew
/readyz    200 while every load balancer that answers routes to this node, else 503 and the reasons: what whoever
           restarts one node after the other asks
"""

from collections.abc import Callable, Mapping

from gale.core.state import Phase
from gale.web.exposition import KIND, exposition
from gale.web.http import Answer, Asked, Request
from gale.web.node_families import SeenNode, measured_node, out_of_service
from gale.web.serving import Shared, alive, read, readiness


class NodeSite:
    """`look`: what there is to be seen now."""

    def __init__(self, look: Callable[[], SeenNode]) -> None:
        self._look = look
        self._metrics = Shared(self._exposition)
        self._paths: Mapping[str, Asked] = {
            "/metrics": self._tell_metrics,
            "/healthz": alive,
            "/readyz": self._tell_readiness,
        }

    async def answer(self, request: Request) -> Answer:
        return await read(request, self._paths)

    async def _exposition(self) -> list[bytes]:
        return await exposition(measured_node(self._look()))

    async def _tell_metrics(self, request: Request) -> Answer:
        return Answer(await self._metrics.get(), kind=KIND)

    async def _tell_readiness(self, request: Request) -> Answer:
        seen = self._look()
        routing = sum(end.phase == Phase.ROUTING for end in seen.load_balancers)
        ready = f"{routing} of {len(seen.load_balancers)} load balancers route to this node"
        return readiness(out_of_service(seen), ready)
