"""gale-node put together: one conversation with every load balancer, each on its own.

A conversation asks GetConfig first, then sends a check every interval over one stream and reads the answers, of which
it asks for one in a checks_timeout; a change of the service's health is told at once. It ends when the stream does, or
when an answer is overdue, and begins again after a delay that grows and is spread by chance.
What a load balancer listens for comes with its answer to GetConfig, and this machine is prepared for it before the
first check (gale/prepare/). A node that is not prepared says that it does not serve, and why.
When told to stop, the node is leaving first (gale/leaving.py): it is given no new flows, and goes on until those that
it has have ended, or a limit has passed, or it is told once more. Then each conversation says goodbye and waits for the
answer: the goodbye is committed by then. What was changed on this machine is put back afterwards.
"""

import asyncio
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress

import structlog

import gale
from gale.config import NodeConfig
from gale.config.reloading import reload_node
from gale.core.backoff import backoff_s
from gale.core.state import Phase
from gale.core.tally import Checks
from gale.errors import HostError, RemoteError
from gale.leaving import LOOK_S, drained, first_of
from gale.log import Refusals
from gale.prepare.memory import Memory
from gale.prepare.needs import Offer, Told
from gale.prepare.preparation import Preparation, Preparer
from gale.probe import Prober
from gale.reload import reread
from gale.rpc.client import NodeLink, Server, node_link
from gale.rpc.v1 import node_pb2 as pb
from gale.supervisor import Standing, Supervisor
from gale.tls import Credentials, Role, credentials
from gale.web.node_families import OtherEnd, SeenNode
from gale.web.node_site import NodeSite
from gale.web.serving import doors, open_doors, places

log = structlog.get_logger()

CONNECT_S = 2.0
GOODBYE_S = 3.0
CHECKS_AN_ANSWER = 3
PAUSE_MOST_S = 5.0  # between two tries to reach a load balancer


async def run(config: NodeConfig, read: Callable[[], NodeConfig], supervisor: Supervisor) -> None:
    """Send checks until SIGTERM or SIGINT, then say goodbye. `read`: the configuration anew, at SIGHUP. Raises
    HostError when its certificate is unfit."""
    own = credentials(config.tls, Role.NODE, [config.name])
    leaving, stop = asyncio.Event(), asyncio.Event()

    def told_to_stop() -> None:
        if leaving.is_set() or not config.drain_timeout_s:
            stop.set()
        leaving.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop)
    refused = Refusals("web connection refused")
    private = own_address(config.load_balancers) if config.web_address == "private" else ""
    web = list(doors(places(config.web_address, private), config.web_port, refused, None))
    log.info(
        "gale-node is up", version=gale.__version__, node=config.name, load_balancers=",".join(config.load_balancers)
    )
    prober = Prober(config.probe, config.probe_interval_s, config.probe_timeout_s)
    probing = asyncio.create_task(prober.run())
    preparation = Preparation(Preparer(Memory(), len(config.load_balancers), config.address6))
    keeping = asyncio.create_task(preparation.keep())
    conversations = [
        Conversation(config, Server(address, own), prober, preparation, leaving, stop)
        for address in config.load_balancers
    ]
    open_doors(web, NodeSite(lambda: seen(conversations, prober, preparation, refused, own)).answer)
    tasks = [asyncio.create_task(conversation.keep_up()) for conversation in conversations]
    stopping = asyncio.create_task(leaving.wait())
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
    supervisor.stopping("draining", config.drain_timeout_s + 2 * GOODBYE_S)
    await drained(conversations, stop, config.drain_timeout_s, lambda status: supervisor.tell(f"STATUS={status}"))
    stop.set()
    _, late = await asyncio.wait(tasks, timeout=GOODBYE_S)
    for task in (*late, probing, keeping):
        task.cancel()
    await preparation.undo()
    for door in web:
        door.close()
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


def seen(
    conversations: Sequence["Conversation"],
    prober: Prober,
    preparation: Preparation,
    refused: Refusals,
    own: Credentials | None,
) -> SeenNode:
    """For those who ask over HTTP."""
    ends = [
        OtherEnd(each.server, each.counted, each.phase, each.reason, preparation.reason(each.server))
        for each in conversations
    ]
    valid_until_s = own.valid_until.timestamp() if own else None
    return SeenNode(
        gale.__version__,
        ends,
        well=prober.serving,
        probes=prober.counted,
        changes=preparation.changes,
        tunnel=preparation.counted(),
        refused=refused.count,
        certificate_ends_s=valid_until_s,
    )


def own_address(load_balancers: Sequence[str]) -> str:
    """Of this machine, where it calls the first load balancer that it knows a way to. Raises HostError."""
    for address in load_balancers:
        host, _, port = address.rpartition(":")
        with socket.socket(type=socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.connect((host, int(port)))  # a datagram's: nothing is sent
            return str(probe.getsockname()[0])
    raise HostError(f'web.address: "private": there is no way to {" or ".join(load_balancers)}: name an address')


class Conversation:
    """With one load balancer, until `stop` is set. `flows`: that this node still has there, once it is leaving; None
    while it may get new ones."""

    def __init__(
        self,
        config: NodeConfig,
        server: Server,
        prober: Prober,
        preparation: Preparation,
        leaving: asyncio.Event,
        stop: asyncio.Event,
    ) -> None:
        self._config = config
        self._prepared_for = frozenset(config.services)
        self._server = server
        self._prober = prober
        self._preparation = preparation
        self._leaving = leaving
        self._stop = stop
        self._renewed = asyncio.Event()
        self._last_told: tuple[str, str, str] | None = None
        self._attempt = 0
        self._most_s = PAUSE_MOST_S
        self.goodbye_taken = False
        self.flows: int | None = None
        self.counted = Checks()

    @property
    def server(self) -> str:
        return str(self._server)

    @property
    def reason(self) -> str:
        """Why this node does not serve there; empty if it does. A service that is stopped while its last flows end
        closes its door first: no reason to cut them."""
        unwell = "" if self._leaving.is_set() else self._prober.reason
        return unwell or self._preparation.reason(self.server)

    @property
    def phase(self) -> str:
        """As this load balancer says; empty while it does not answer."""
        return self._last_told[0] if self._last_told and self._attempt == 0 else ""

    def renew(self, config: NodeConfig) -> None:
        """Begin anew, without a pause and without a goodbye, as this says: weight, services. The machine stays prepared
        for those that it takes no part in any more, whose connections go on; but not if it could not be."""
        before, self._prepared_for = self._prepared_for, frozenset(config.services)
        if not self._preparation.reason(self.server):
            some = before and self._prepared_for  # none are all
            self._prepared_for = before | self._prepared_for if some else frozenset()
        self._config = config
        self._renewed.set()

    async def keep_up(self) -> None:
        while not self._stop.is_set():
            self._renewed.clear()
            try:
                async with node_link(self._server) as link:
                    config = await link.get_config(gale.__version__, CONNECT_S)
                    self._most_s = min(PAUSE_MOST_S, config.checks_timeout_ms / 2000)  # heard before it is missed
                    await self._preparation.hear(self.server, told(config, self._prepared_for))
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
            self.counted.failed += bool(reason)
            if not reason:
                log.info("a load balancer has it that this node begins anew", load_balancer=self.server)
            elif self._attempt == 0:
                log.warning("load balancer lost, trying again", load_balancer=self.server, reason=reason)
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self._stop.wait(), backoff_s(self._attempt, random.random(), most_s=self._most_s)
                )
            self._attempt += 1

    async def _report(self, link: NodeLink, interval_s: float, timeout_s: float) -> None:
        """One stream, from its first check to its end. Raises TimeoutError when an answer is overdue."""
        replies = link.checks(self._checks(interval_s))
        overdue_s = max(timeout_s + (CHECKS_AN_ANSWER - 1) * interval_s, GOODBYE_S)
        while (reply := await asyncio.wait_for(anext(replies, None), overdue_s)) is not None:
            if self._attempt:
                log.info("load balancer found", load_balancer=self.server, attempts=self._attempt + 1)
                self._attempt = 0
            self.counted.answers += 1
            self.counted.refusals += bool(reply.refusal)
            self._tell(reply)

    async def _checks(self, interval_s: float) -> AsyncIterator[pb.Check]:
        turn, said = 0, pb.Check()
        while not self._stop.is_set():
            if self._renewed.is_set():
                return
            changes = self._prober.changed, self._preparation.changed
            reason = self.reason
            check = self._check(pb.CONDITION_NOT_SERVING if reason else pb.CONDITION_SERVING, reason)
            turn, said = (turn + 1, said) if check == said else (0, check)
            yield as_asked(check, turn)
            if self._leaving.is_set():
                await first_of(*changes, self._stop, timeout_s=min(interval_s, LOOK_S))
            else:
                await first_of(*changes, self._renewed, self._leaving, self._stop, timeout_s=interval_s)
        yield self._check(pb.CONDITION_GOODBYE)

    def _check(self, condition: pb.Condition.ValueType, reason: str = "") -> pb.Check:
        self.counted.sent += 1
        return pb.Check(
            node=self._config.name,
            weight=self._config.weight,
            services=self._config.services,
            reports_to=len(self._config.load_balancers),
            condition=condition,
            address6=self._preparation.address6,
            reason=reason,
            leaving=self._leaving.is_set(),
        )

    def _tell(self, reply: pb.CheckReply) -> None:
        """Say how this node stands, when that changes."""
        self.flows = reply.flows if reply.HasField("flows") else None
        self.goodbye_taken = self._stop.is_set() and reply.phase in (Phase.LEFT.value, Phase.BANNED.value)
        now = (reply.phase, reply.refusal, reply.lacks)
        if now == self._last_told:
            return
        self._last_told = now
        if reply.refusal:
            log.warning("refused", load_balancer=self.server, reason=reply.refusal, phase=reply.phase)
        else:
            log.info(f"this node is {reply.phase}", load_balancer=self.server)
        if reply.lacks:
            log.warning("not for every service", load_balancer=self.server, reason=reply.lacks)


def as_asked(check: pb.Check, turn: int) -> pb.Check:
    """The check, by how many before it said the same: most need no answer that says the same again."""
    asked = pb.Check(quiet=turn % CHECKS_AN_ANSWER != 0)
    asked.MergeFrom(check)
    return asked


def told(config: pb.GetConfigResponse, services: Collection[str]) -> Told:
    """What concerns a node that takes part in these services; in all, if there are none."""
    offers = (
        Offer(each.name, tuple(each.addresses), each.mode, 6 if each.tunnel == "ipv6" else 4)
        for each in config.services
        if not services or each.name in services
    )
    return Told(tuple(offers), tuple(config.addresses))
