"""gale-node put together: one conversation with every load balancer, each on its own.

A conversation asks GetConfig first, then sends a check every interval over one stream and reads the answers; a change
of the service's health is told at once. It ends when the stream does, or when an answer is overdue, and begins again
after a delay that grows and is spread by chance.
What a load balancer listens for comes with its answer to GetConfig, and this machine is prepared for it before the
first check (gale/prepare/). A node that is not prepared says that it does not serve, and why.
When told to stop, each conversation says goodbye and waits for the answer: the goodbye is committed by then. What was
changed on this machine is put back afterwards.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress

import structlog

import gale
from gale.config import NodeConfig
from gale.config.reloading import reload_node
from gale.core.backoff import backoff_s
from gale.core.state import Phase
from gale.errors import RemoteError
from gale.prepare.memory import Memory
from gale.prepare.needs import Offer, Told
from gale.prepare.preparation import Preparation, Preparer
from gale.probe import Prober
from gale.reload import reread
from gale.rpc.client import NodeLink, Server, node_link
from gale.rpc.v1 import node_pb2 as pb
from gale.supervisor import Standing, Supervisor
from gale.tls import Role, credentials

log = structlog.get_logger()

CONNECT_S = 2.0
GOODBYE_S = 3.0
PAUSE_MOST_S = 5.0  # between two tries to reach a load balancer


async def run(config: NodeConfig, read: Callable[[], NodeConfig], supervisor: Supervisor) -> None:
    """Send checks until SIGTERM or SIGINT, then say goodbye. `read`: the configuration anew, at SIGHUP. Raises
    HostError when its certificate is unfit."""
    own = credentials(config.tls, Role.NODE, [config.name])
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info(
        "gale-node is up", version=gale.__version__, node=config.name, load_balancers=",".join(config.load_balancers)
    )
    prober = Prober(config.probe, config.probe_interval_s, config.probe_timeout_s)
    probing = asyncio.create_task(prober.run())
    preparation = Preparation(Preparer(Memory(), len(config.load_balancers), config.address6))
    keeping = asyncio.create_task(preparation.keep())
    conversations = [
        Conversation(config, Server(address, own), prober, preparation, stop) for address in config.load_balancers
    ]
    tasks = [asyncio.create_task(conversation.keep_up()) for conversation in conversations]
    stopping = asyncio.create_task(stop.wait())
    reporting = asyncio.create_task(supervisor.report(loop_turned, lambda: standing(config.name, conversations)))

    def reload() -> None:
        nonlocal config
        before, config = config, reread(config, read, reload_node, supervisor)
        if config is not before:
            prober.ask(config.probe, config.probe_interval_s, config.probe_timeout_s)
            for conversation in conversations:
                conversation.renew(config)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    done, _ = await asyncio.wait([stopping, probing, keeping, reporting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in done - {stopping}:
        task.result()  # these end only when told to, or by failing
    reporting.cancel()
    supervisor.stopping("says goodbye")
    _, late = await asyncio.wait(tasks, timeout=GOODBYE_S)
    for task in (*late, probing, keeping):
        task.cancel()
    await preparation.undo()
    if any(conversation.goodbye_taken for conversation in conversations):
        log.info("gale-node stops, the load balancers know")
    else:
        log.warning("gale-node stops, and no load balancer has committed its goodbye: they will miss its checks")


def undo() -> bool:
    """Put back what a gale-node that was killed has changed. True if there is nothing more. Raises HostError."""
    return Preparer(Memory()).undo()


async def loop_turned() -> None:
    """Everything here waits for others: that the loop turns is all that can be asked."""


def standing(name: str, conversations: Sequence["Conversation"]) -> Standing:
    """For `systemctl status`: ready once a load balancer has answered."""
    phases = [conversation.phase for conversation in conversations if conversation.phase]
    if not phases:
        return Standing(False, "no load balancer has answered yet")
    told = ", ".join(f"{phase} at {phases.count(phase)}" for phase in sorted(set(phases)))
    return Standing(True, f"{name}: {told} of {len(conversations)} load balancers")


async def first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Return when one of the events is set, or when the time is up."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


class Conversation:
    """With one load balancer, until `stop` is set."""

    def __init__(
        self, config: NodeConfig, server: Server, prober: Prober, preparation: Preparation, stop: asyncio.Event
    ) -> None:
        self._config = config
        self._server = server
        self._prober = prober
        self._preparation = preparation
        self._stop = stop
        self._renewed = asyncio.Event()
        self._last_told: tuple[str, str, str] | None = None
        self._attempt = 0
        self._most_s = PAUSE_MOST_S
        self.goodbye_taken = False

    @property
    def phase(self) -> str:
        """As this load balancer says; empty while it does not answer."""
        return self._last_told[0] if self._last_told and self._attempt == 0 else ""

    def renew(self, config: NodeConfig) -> None:
        """Begin anew, without a pause and without a goodbye, as this says: weight, services."""
        self._config = config
        self._renewed.set()

    async def keep_up(self) -> None:
        while not self._stop.is_set():
            self._renewed.clear()
            try:
                async with node_link(self._server) as link:
                    config = await link.get_config(gale.__version__, CONNECT_S)
                    self._most_s = min(PAUSE_MOST_S, config.checks_timeout_ms / 2000)  # heard before it is missed
                    await self._preparation.hear(str(self._server), told(config, self._config.services))
                    await self._report(link, config.interval_ms / 1000, config.checks_timeout_ms / 1000)
                    reason = ""
            except RemoteError as error:
                reason = str(error)
            except TimeoutError:
                reason = "its answer is overdue"
            if self._stop.is_set():
                return
            if self._renewed.is_set():
                continue
            if not reason:
                log.info("a load balancer has it that this node begins anew", load_balancer=str(self._server))
            elif self._attempt == 0:
                log.warning("load balancer lost, trying again", load_balancer=str(self._server), reason=reason)
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self._stop.wait(), backoff_s(self._attempt, random.random(), most_s=self._most_s)
                )
            self._attempt += 1

    async def _report(self, link: NodeLink, interval_s: float, timeout_s: float) -> None:
        """One stream, from its first check to its end. Raises TimeoutError when an answer is overdue."""
        replies = link.checks(self._checks(interval_s))
        while (reply := await asyncio.wait_for(anext(replies, None), max(timeout_s, GOODBYE_S))) is not None:
            if self._attempt:
                log.info("load balancer found", load_balancer=str(self._server), attempts=self._attempt + 1)
                self._attempt = 0
            self._tell(reply)

    async def _checks(self, interval_s: float) -> AsyncIterator[pb.Check]:
        while not self._stop.is_set():
            if self._renewed.is_set():
                return
            changes = self._prober.changed, self._preparation.changed
            reason = self._prober.reason or self._preparation.reason(str(self._server))
            yield self._check(pb.CONDITION_NOT_SERVING if reason else pb.CONDITION_SERVING, reason)
            await first_of(*changes, self._renewed, self._stop, timeout_s=interval_s)
        yield self._check(pb.CONDITION_GOODBYE)

    def _check(self, condition: pb.Condition.ValueType, reason: str = "") -> pb.Check:
        return pb.Check(
            node=self._config.name,
            weight=self._config.weight,
            services=self._config.services,
            reports_to=len(self._config.load_balancers),
            condition=condition,
            address6=self._preparation.address6,
            reason=reason,
        )

    def _tell(self, reply: pb.CheckReply) -> None:
        """Say how this node stands, when that changes."""
        self.goodbye_taken = self._stop.is_set() and reply.phase in (Phase.LEFT.value, Phase.BANNED.value)
        now = (reply.phase, reply.refusal, reply.lacks)
        if now == self._last_told:
            return
        self._last_told = now
        if reply.refusal:
            log.warning("refused", load_balancer=str(self._server), reason=reply.refusal, phase=reply.phase)
        else:
            log.info(f"this node is {reply.phase}", load_balancer=str(self._server))
        if reply.lacks:
            log.warning("not for every service", load_balancer=str(self._server), reason=reply.lacks)


def told(config: pb.GetConfigResponse, services: Collection[str]) -> Told:
    """What concerns a node that takes part in these services; in all, if there are none."""
    offers = (
        Offer(each.name, tuple(each.addresses), each.mode, 6 if each.tunnel == "ipv6" else 4)
        for each in config.services
        if not services or each.name in services
    )
    return Told(tuple(offers), tuple(config.addresses))
