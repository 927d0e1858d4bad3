"""What the load balancer that is asked asks all of them: itself, and the others over their APIs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gale.config import EffectiveConfig
from gale.errors import DataplaneError, RemoteError
from gale.ports import Operator
from gale.rpc.client import Server, ask, fetch_local_status
from gale.tls import Credentials

ASK_OTHERS_S = 0.5
ASK_DATAPLANE_S = 2.0

T = TypeVar("T")


class Everywhere:
    """`quorum`: every load balancer's address; `api_port`: where one that never announced itself would answer;
    `credentials`: to ask the others with; `in_force`: the configuration of this one."""

    def __init__(
        self,
        operator: Operator,
        quorum: tuple[str, ...],
        api_port: int,
        credentials: Credentials | None = None,
        in_force: Callable[[], EffectiveConfig] = EffectiveConfig,
    ) -> None:
        self._operator = operator
        self._quorum = quorum
        self._api_port = api_port
        self._credentials = credentials
        self._in_force = in_force

    async def _everywhere(
        self,
        method: str,
        request: Any,
        own: Callable[[str], Awaitable[T]],
        part: Callable[..., T],
        timeout_s: float = ASK_DATAPLANE_S,
    ) -> list[T]:
        """The part of each load balancer, by address: our own, and those that the others give for themselves."""
        me = self._operator.address

        async def ours() -> T:
            try:
                return await own(me)
            except DataplaneError as error:
                return part(address=me, error=str(error))

        if request.here:
            return [await ours()]
        asked = type(request)()
        asked.CopyFrom(request)
        asked.here = True

        async def theirs(server: Server) -> Any:
            if timeout_s > ASK_DATAPLANE_S:  # a machine that is off is not waited for so long
                await fetch_local_status(server, ASK_OTHERS_S)
            return await ask(server, method, asked, timeout_s)

        mine, answers = await asyncio.gather(ours(), self._others(theirs))
        parts = {me: mine}
        for address, answer in answers.items():
            if isinstance(answer, str):
                parts[address] = part(address=address, error=answer)
            else:
                parts.update((given.address, given) for given in answer.load_balancers)
        return [parts[address] for address in sorted(parts)]

    async def _others(self, fetch: Callable[[Server], Awaitable[T]]) -> dict[str, T | str]:
        """What the other load balancers answer, or why they do not."""

        async def one(address: str) -> T | str:
            known = self._operator.state.load_balancers.get(address)
            api = known.api if known else f"{address.rpartition(':')[0]}:{self._api_port}"
            try:
                return await fetch(Server(api, self._credentials))
            except RemoteError as error:
                return str(error)

        me = self._operator.address
        others = [address for address in self._quorum if address != me]
        return dict(zip(others, await asyncio.gather(*map(one, others)), strict=True))
