"""What a load balancer answers at which path.

/         the page for people, of the files in static/; it asks /page.json for what it shows, and /order to drain a node
/metrics   for Prometheus; /metrics?nodes=no leaves out what there is of each node
/healthz   200 as long as the loop turns: what a supervisor asks that would start gale-lb anew
/readyz    200 while clients' traffic may be sent here, else 503 and the reasons: what a router asks

All of it may be read without rights; for orders see orders.py.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gale.dataplane.abi import verdicts
from gale.log import Refusals
from gale.ports import Operator
from gale.tls import Credentials
from gale.web.exposition import KIND, exposition
from gale.web.families import Seen, measured
from gale.web.health import unready
from gale.web.http import Answer, Asked, Request
from gale.web.orders import JSON, may_order, take
from gale.web.page import Moment, Picture, Wanted
from gale.web.serving import Shared, alive, read, readiness

ORDER = "/order"
STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Site:
    """Of a load balancer. `refusals`: by port; `credentials`: its own, where there is TLS."""

    def __init__(
        self, operator: Operator, refusals: Mapping[str, Refusals], credentials: Credentials | None = None
    ) -> None:
        self._operator = operator
        self._refusals = refusals
        self._credentials = credentials
        self._actions = {verdict.name: verdict.action.value for verdict in verdicts()}
        self._metrics = Shared(lambda: self._exposition(nodes=True))
        self._metrics_without_nodes = Shared(lambda: self._exposition(nodes=False))
        self._moment = Shared(self._look)
        self._picture = Picture()
        self._files = {path: Answer((STATIC / name).read_text(), kind=kind) for path, (name, kind) in FILES.items()}
        self._paths: Mapping[str, Asked] = {
            **dict.fromkeys(FILES, self._tell_file),
            "/page.json": self._tell_page,
            "/metrics": self._tell_metrics,
            "/healthz": alive,
            "/readyz": self._tell_readiness,
        }

    async def answer(self, request: Request) -> Answer:
        if request.path == ORDER:
            if request.method != "POST":
                return Answer("orders are given: POST\n", 405, headers={"allow": "POST"})
            return await take(request, self._operator)
        return await read(request, self._paths)

    async def _tell_file(self, request: Request) -> Answer:
        return self._files[request.path]

    async def _tell_page(self, request: Request) -> Answer:
        drawn = await self._picture.draw(await self._moment.get(), Wanted.of(request.query))
        drawn["may_order"] = may_order(request.who)
        drawn["who"] = str(request.who or "")
        return Answer([msgspec.json.encode(drawn)], kind=JSON)

    async def _look(self) -> Moment:
        counters = await self._operator.counters()
        now_s = asyncio.get_running_loop().time()
        return Moment(now_s, self._operator.state, self._operator.local_status(), counters)

    async def _tell_metrics(self, request: Request) -> Answer:
        match request.query.get("nodes", "yes"):
            case "yes":
                return Answer(await self._metrics.get(), kind=KIND)
            case "no":
                return Answer(await self._metrics_without_nodes.get(), kind=KIND)
            case _:
                return Answer("nodes: yes or no\n", 400)

    async def _exposition(self, nodes: bool) -> list[bytes]:
        counters, local, state = await self._operator.counters(), self._operator.local_status(), self._operator.state
        ends = self._credentials.valid_until.timestamp() if self._credentials else None
        refused = {port: refusals.count for port, refusals in self._refusals.items()}
        ready, killed = not unready(local, state), self._operator.flows.killed
        seen = Seen(state, local, counters, self._actions, refused, ready, killed, ends)
        return await exposition(measured(seen, nodes))

    async def _tell_readiness(self, request: Request) -> Answer:
        local = self._operator.local_status()
        ready = "ready" if local.consensus.quorum else "ready, without a quorum: forwarding goes on"
        return readiness(unready(local, self._operator.state), ready)
