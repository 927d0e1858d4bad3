"""The one loop of a load balancer: what it sees becomes proposals, what is committed becomes map writes.

    checks ──> watch ──due──> screen ──> propose ──log──> state ──plan──> writes ──> maps

Decisions are made elsewhere, by pure functions of gale.core; this file brings them the time, the state and the
results. A step runs every 50 ms and at once after every commit. One report is in flight at a time; what is seen
meanwhile goes out together with the next one. Without a quorum nothing is decided, and the maps follow the last
committed view, less the nodes that are silent to this load balancer itself (core/degraded.py).
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import structlog

from gale.changes import Changes
from gale.core.agenda import next_duty
from gale.core.apply import impostor, screen
from gale.core.commands import Announce, Barrier, Command, NodeOrder, Order, Passed, Report
from gale.core.degraded import Degraded
from gale.core.orders import may_leave, too_new
from gale.core.outcome import Applied, Outcome, Refusal, Rejected
from gale.core.plan import Write, after, parted, plan
from gale.core.shared import HealthPolicy
from gale.core.state import ClusterState, NodeInfo, Phase
from gale.core.view import View
from gale.core.watch import Watch
from gale.draining import Draining
from gale.errors import ConsensusError, DataplaneError
from gale.log import Sparing
from gale.ports import (
    Clock,
    Consensus,
    ConsensusStatus,
    Counters,
    Dataplane,
    Explanation,
    FlowTable,
    LocalStatus,
    Question,
    Reached,
    Standing,
)

log = structlog.get_logger()

STEP_S = 0.05
NEIGHBOURS_MS = 1_000
VERIFY_MS = 60_000
GOODBYE_S = 2.0
REFUSED_MAX = 1_000
ATTACH_MS = 2_000
WRITES_MAX = 250  # map writes in one step
FLOWLESS = ("no_flow", "taking_over")  # verdicts: such a packet, but no flow of it, is known
ELECTION_MS = 1_000  # so long there may be no leader without that anything is wrong


class Controller:
    """`me`: how this load balancer announces itself; its times are filled in here."""

    def __init__(self, me: Announce, consensus: Consensus, dataplane: Dataplane, clock: Clock) -> None:
        self._me = me
        self._consensus = consensus
        self._dataplane = dataplane
        self._clock = clock
        self._watch = Watch(me.load_balancer)
        self._draining = Draining(lambda: dataplane.flows, clock)
        self._wake = asyncio.Event()
        self._stepped = asyncio.Event()
        self._proposing: asyncio.Task[None] | None = None
        self._held = View()
        self._degraded: Degraded | None = None
        self._quorum_ms: int | None = None
        self._reconciled: object = None
        self._attached = False
        self._whole_ms: int | None = None
        self._neighbours_ms = 0
        self._verified_ms: int | None = None
        self._parted: dict[int, None] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._troubles: dict[str, str] = {}
        self._refusals = Sparing("more checks are refused than this")
        self._ways = Sparing("more nodes are reached another way than this")
        self._changes = Changes()
        self._mended = 0

    def announce(self, me: Announce) -> None:
        """From now on as this: its health policy has changed, or whether it enforces a single configuration."""
        self._me = me
        self.wake()

    @property
    def forwards(self) -> bool:
        """Its programs are attached, and their maps held the committed view then."""
        return self._attached

    async def stepped(self) -> None:
        """Returns after the next step."""
        await self._stepped.wait()

    # gale.ports.NodeGate

    def policy(self) -> HealthPolicy:
        return self._consensus.state.shared.health if self._consensus.state.reference else self._me.shared.health

    def check(self, info: NodeInfo, serving: bool, reason: str = "") -> Standing:
        if info.leaving and not may_leave(self.state):
            info = replace(info, leaving=False)
        if refusal := impostor(self.state, info):
            self._refuse(info, refusal)
        else:
            self._watch.check(info, serving, self._clock.monotonic_ms(), reason)
        standing = self._standing(info)
        if info.leaving:
            with suppress(DataplaneError):  # it is in the log, and the node asks again
                unknown = standing.phase == "unknown" and self._attached
                return replace(standing, flows=0 if unknown else self.flows_left(info.id))
        return standing

    async def goodbye(self, info: NodeInfo) -> Standing:
        node = self.state.nodes.get(info.id)
        if node is None or node.info.address != info.address:
            return self._standing(info)
        self._watch.goodbye(info.id)
        self.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while self._standing(info).phase not in (Phase.LEFT.value, Phase.BANNED.value):
                    await self._stepped.wait()
        return self._standing(info)

    def _standing(self, info: NodeInfo) -> Standing:
        node = self.state.nodes.get(info.id)
        known = node is not None and node.info.address == info.address
        phase = node.phase.value if node and known else "unknown"
        lacks = info.lacks(self.state.shared.services)
        return Standing(phase, self._refused.get((info.id, info.address), ""), lacks)

    # gale.ports.Operator

    @property
    def address(self) -> str:
        return self._me.load_balancer

    @property
    def state(self) -> ClusterState:
        return self._consensus.state

    def local_status(self) -> LocalStatus:
        return LocalStatus(
            address=self._me.load_balancer,
            version=self._me.version,
            config_hash=self._me.shared.hash,
            generation=self._held.generation,
            consensus=self._consensus.status(),
            verdicts=self._dataplane.verdicts(),
            attachments=self._dataplane.attachments,
            degraded=tuple(sorted(self._taken_away())),
            not_serving={name: why for name, why in self._watch.reasons().items() if name in self.state.nodes},
            caught_up=self._consensus.ready,
            troubles=dict(self._troubles),
            mended=self._mended,
        )

    @property
    def flows(self) -> FlowTable:
        return self._dataplane.flows

    def flows_left(self, node: str) -> int | None:
        if not self._attached:
            return None  # an earlier start's programs may forward, by what that one knew
        return self._draining.left(self.state, node, self._held.generation)

    async def counters(self) -> Counters:
        return await self._dataplane.counters()

    async def explain(self, question: Question) -> tuple[Question, Explanation]:
        explanation = await self._dataplane.explain(question)
        if explanation.verdict in FLOWLESS and not question.opening:
            question = replace(question, opening=True)
            explanation = await self._dataplane.explain(question)
        return question, explanation

    def verify(self) -> Sequence[str]:
        differences = self._dataplane.verify()
        self._mended += len(differences)
        for difference in differences:
            log.warning("the kernel held something else than was written: mended", difference=difference)
        return differences

    def reached(self, node: str) -> Sequence[Reached]:
        known = self.state.nodes.get(node)
        return self._dataplane.reached(known.number) if known else ()

    async def order(self, order: Order) -> Outcome:
        if reason := too_new(self.state, order):
            return Rejected(reason)
        outcome = await self._consensus.propose(replace(order, time_ms=self._clock.wall_ms()))
        # said again here: of several attempts the first one's outcome may be lost
        if isinstance(order, NodeOrder) and order.node not in self.state.nodes:
            return Rejected(f"no node is called {order.node}")
        return outcome

    async def hand_over(self, to: str) -> None:
        await self._consensus.hand_over(to)

    async def barrier(self) -> None:
        await self._consensus.propose(Barrier(self._clock.wall_ms()))

    # the loop

    def wake(self) -> None:
        """Something changed: take the next step now."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. What a step could not do is said once and tried again in the next."""
        while True:
            self._wake.clear()
            self.step()
            self._stepped.set()
            self._stepped = asyncio.Event()
            await asyncio.sleep(0)  # who wants the next step at once lets the others have their turn first
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._pause_s())

    def _pause_s(self) -> float:
        """Until the next step: sooner when a node falls silent before it, so that it is out in time."""
        until_ms = self._watch.until_silence_ms(self._clock.monotonic_ms())
        return STEP_S if until_ms is None else min(STEP_S, until_ms / 1_000)

    def step(self) -> None:
        now_ms, state = self._clock.monotonic_ms(), self.state
        self._watch.tick(state, now_ms)
        for lines in (self._refusals, self._ways):
            lines.settle(now_ms)
        self._changes.tell(state.transitions, now_ms, replayed=not self._consensus.ready)
        if not self._consensus.ready:
            return
        self._draining.heed(state)
        status = self._consensus.status()
        self._degrade(state, status.quorum, now_ms)
        self._reconcile(state, now_ms)
        self._verify_in_turn(now_ms)
        idle = self._proposing is None or self._proposing.done()
        if idle and (command := self._next_command(state, status, now_ms)):
            self._proposing = asyncio.get_running_loop().create_task(self._propose(command))

    def _degrade(self, state: ClusterState, quorum: bool, now_ms: int) -> None:
        """Without a quorum, take nodes away that are silent here; with one, follow the log again."""
        before = self._taken_away()
        if quorum:
            if self._degraded:
                self._watch.excuse(self._degraded.since_ms)
            self._quorum_ms, self._degraded = now_ms, None
        elif self._quorum_ms is None or now_ms - self._quorum_ms >= ELECTION_MS:
            self._degraded = self._degraded or Degraded()
            self._degraded.look(state, self._watch, now_ms)
        away = self._taken_away()
        for name in sorted(away.keys() - before.keys()):
            log.warning("no quorum: a node is taken away here, and here only", node=name, cause=away[name])
        for name in sorted(before.keys() - away.keys()):
            cause = "the quorum is back, the log decides" if quorum else "it passed its checks again, or left the log"
            log.info("a node that was taken away here is given back", node=name, cause=cause)

    def _taken_away(self) -> Mapping[str, str]:
        return self._degraded.away if self._degraded else {}

    def _reconcile(self, state: ClusterState, now_ms: int) -> None:
        """Make the maps hold what was committed, a bounded number of writes a step. What fails is tried again in the
        next one: a plan may be cut off anywhere."""
        try:
            wants = (state.generation, frozenset(self._taken_away()))
            if wants != self._reconciled:
                view = self._degraded.view(state) if self._degraded else state.view()
                if not self._write(view.only(service.name for service in self._me.shared.services)):
                    self.wake()
                    return
                self._reconciled = wants
            for number in tuple(self._parted):
                self._dataplane.farewell(number)
                del self._parted[number]
            if not self._attached and self._may_attach(now_ms):
                self._dataplane.attach()
                self._attached = True
                log.info("forwarding", generation=self._held.generation, **self._dataplane.attachments)
            if now_ms - self._neighbours_ms >= NEIGHBOURS_MS:
                self._neighbours_ms = now_ms
                changes = self._dataplane.refresh_neighbours()
                for change in (change for change in changes if self._ways.may(now_ms)):
                    log.info("a node is reached another way", change=str(change))
            self._settled("dataplane")
        except DataplaneError as error:
            self._troubled("dataplane", str(error))

    def _may_attach(self, now_ms: int) -> bool:
        """While an earlier start's programs forward, there is time to find out how nodes are reached, and for nodes to
        prepare for what is new; but not more than a node may be silent for."""
        self._whole_ms = now_ms if self._whole_ms is None else self._whole_ms
        waits_for = self._dataplane.unprepared(self._watch.heard())
        if waits_for and now_ms - self._whole_ms < max(ATTACH_MS, self.policy().checks_timeout_ms):
            self._dataplane.refresh_neighbours()
            return False
        if waits_for:
            log.warning("forwarding begins all the same", missing=waits_for)
        return True

    def _verify_in_turn(self, now_ms: int) -> None:
        """Once the programs are attached, and from then on every minute."""
        if not self._attached or (self._verified_ms is not None and now_ms - self._verified_ms < VERIFY_MS):
            return
        self._verified_ms = now_ms
        try:
            self.verify()
            self._settled("verification")
        except DataplaneError as error:
            self._troubled("verification", str(error))

    def _write(self, wanted: View) -> bool:
        """Bring the maps nearer to this view. True once they hold it."""
        writes, done = plan(self._held, wanted), list[Write]()
        try:
            for write in islice(writes, WRITES_MAX):
                self._dataplane.perform(write)
                done.append(write)
                if number := parted(self._held, write):
                    self._parted[number] = None
        finally:
            self._held = after(self._held, *done)
        if len(done) < len(writes):
            return False
        self._held = replace(self._held, generation=wanted.generation)
        return True

    def _next_command(self, state: ClusterState, status: ConsensusStatus, now_ms: int) -> Command | None:
        if not status.quorum:
            self._troubled("consensus", "no quorum: nothing can be decided, forwarding goes on without what dies")
            return None
        self._settled("consensus")
        wall_ms, me = self._clock.wall_ms(), self._me.load_balancer
        leads = status.leader == me
        if duty := next_duty(state, self._me, leads=leads, connected=status.connected, time_ms=wall_ms):
            return duty
        if state.ignored(me):
            return None
        seen = Report(wall_ms, me, self._watch.due(state, now_ms))
        report, refusals = screen(state, seen)
        self._note_refusals(refusals, seen)
        return report if report.observations else None

    async def _propose(self, command: Command) -> None:
        try:
            outcome = await self._consensus.propose(command)
        except ConsensusError as error:
            log.warning("proposal failed, it will be made again", command=type(command).__name__, reason=str(error))
            return
        if isinstance(outcome, Rejected):
            log.warning("proposal rejected", command=type(command).__name__, reason=outcome.reason)
        elif isinstance(outcome, Applied) and isinstance(command, Report):
            self._note_refusals(outcome.refusals, command)
        self.wake()

    # what operators read

    def _note_refusals(self, refusals: tuple[Refusal, ...], report: Report) -> None:
        """Of checks that arrived: keep the reason for the node's next reply, or forget one that holds no more."""
        refused = {refusal.node: refusal.reason for refusal in refusals}
        for observation in report.observations:
            if isinstance(observation, Passed):
                if reason := refused.get(observation.node.id):
                    self._refuse(observation.node, reason)
                else:
                    self._refused.pop((observation.node.id, observation.node.address), None)

    def _refuse(self, info: NodeInfo, reason: str) -> None:
        """Say each refusal once; what strangers can cause is kept within bounds."""
        who = (info.id, info.address)
        if self._refused.get(who) != reason:
            if len(self._refused) >= REFUSED_MAX:
                self._refused.pop(next(iter(self._refused)))
            self._refused[who] = reason
            if self._refusals.may(self._clock.monotonic_ms()):
                log.warning("a node's check is refused", node=info.id, address=info.address, reason=reason)

    def _troubled(self, part: str, reason: str) -> None:
        if self._troubles.get(part) != reason:
            self._troubles[part] = reason
            log.error(f"{part}: {reason}")

    def _settled(self, part: str) -> None:
        if self._troubles.pop(part, None):
            log.info(f"{part}: well again")
