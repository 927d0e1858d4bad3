"""Keeps this machine prepared for what the load balancers tell, for as long as gale-node runs.

Each load balancer's last word counts until its next one, also while it is away; what is prepared is the union. A load
balancer hears that this node serves when all that it needs itself is done; what another one asks for in vain is no
reason against it.

What is changed is written to memory before it is done, and compared with the machine every few seconds: what somebody
took away is put back, and what failed is tried again. Where no load balancer has a service of mode l2 or l3, nothing is
changed and no rights are needed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from pyroute2.netlink.exceptions import NetlinkError

from gale.errors import GaleError
from gale.prepare.memory import Memory, alone
from gale.prepare.needs import Host, Needs, Told, needs
from gale.prepare.perform import Workshop, take_back, take_back_all
from gale.prepare.plan import Change, Plan, begun, key, keys, plan
from gale.prepare.programs import build
from gale.prepare.survey import survey

log = structlog.get_logger()

T = TypeVar("T")

CHECK_S = 10.0
RETRY_S = 2.0
GATHER_S = 0.1  # load balancers are heard at about the same time: the programs are loaded once for all of them
SETTLE_S = 0.5  # a goodbye is committed a moment before the last load balancer has written its tables


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reasons`: load balancer -> why this node cannot serve it, empty if it can."""

    reasons: Mapping[str, str] = field(default_factory=dict)
    address6: str = ""


class Preparer:
    """The machine's side: plain calls, one at a time, all in one network namespace."""

    def __init__(self, memory: Memory, load_balancers: int = 0, address6: str = "") -> None:
        self._memory = memory
        self._load_balancers = load_balancers
        self._address6 = address6
        self._workshop = Workshop()
        self._hold = ExitStack()
        self._done: tuple[Change, ...] | None = None  # not read yet, or not ours to read
        self._failed: dict[tuple[str, ...], str] = {}

    def bring_about(self, told: Mapping[str, Told]) -> Outcome:
        """Look, plan, change."""
        self._failed = {}
        peers = frozenset(address for each in told.values() for address in each.addresses)
        host = Host()
        try:
            concerned = any(each.direct for each in told.values()) or bool(self._done or self._memory.read())
            host = survey(peers, programs=concerned)
            if concerned:
                return Outcome(self._prepare(told, host, peers), self._own6(host))
        except (GaleError, NetlinkError, OSError) as error:
            return Outcome({name: str(error) if each.direct else "" for name, each in told.items()}, self._own6(host))
        return Outcome(dict.fromkeys(told, ""), self._own6(host))

    def undo(self) -> bool:
        """Put back everything that was changed, also by an earlier gale-node; True if all of it could be. Raises
        HostError, also when another gale-node runs here."""
        if self._done is None and self._memory.read():
            self._remembered()
        if self._done:
            self._done = take_back_all(self._done)
            self._memory.write(self._done)
        return not self._done

    @property
    def done(self) -> tuple[Change, ...]:
        """What this gale-node knows to be changed."""
        return self._done or ()

    def counted(self) -> Mapping[tuple[str, str], int]:
        """By the programs that this gale-node has put on interfaces: packets by verdict and what becomes of such a
        packet. Empty where it needs none, or found those that one that was killed has left."""
        return self._workshop.counted()

    def _own6(self, host: Host) -> str:
        return self._address6 or host.address6()

    def _prepare(self, told: Mapping[str, Told], host: Host, peers: frozenset[str]) -> dict[str, str]:
        all_heard = len(told) == self._load_balancers
        needed = needs(tuple(told.values()), host, self._own6(host))
        self._perform(plan(needed, self._remembered(), host, build(), all_heard))
        own = {name: needs((each,), host, self._own6(host), peers) for name, each in told.items()}
        return {name: self._reason(each) for name, each in own.items()}

    def _reason(self, needed: Needs) -> str:
        failed = [f"{' '.join(each[1:])}: {self._failed[each]}" for each in sorted(keys(needed) & self._failed.keys())]
        return next(iter((*needed.hindrances, *failed)), "")

    def _remembered(self) -> tuple[Change, ...]:
        if self._done is None:
            self._hold.enter_context(alone())
            self._done = self._memory.read()
        return self._done

    def _perform(self, steps: Plan) -> None:
        for change in steps.back:
            try:
                take_back(change)
                self._forget(change)
            except GaleError as error:
                log.warning("cannot be undone", what=" ".join(key(change)), reason=str(error))
        for change in steps.make:
            known = key(change) in map(key, self._remembered())
            if not known:
                self._remember(begun(change))
            try:
                self._workshop.make(change, again=key(change) in steps.again)
                self._remember(change)
            except GaleError as error:
                self._failed[key(change)] = str(error)
                if not known:
                    self._forget(change)

    def _remember(self, change: Change) -> None:
        self._write((*(done for done in self._remembered() if key(done) != key(change)), change))

    def _forget(self, change: Change) -> None:
        self._write(tuple(done for done in self._remembered() if key(done) != key(change)))

    def _write(self, changes: tuple[Change, ...]) -> None:
        self._memory.write(changes)
        self._done = changes


class Preparation:
    """gale-node's side: what was told, what came of it, and when that changes."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self._lock = asyncio.Lock()
        self._told: dict[str, Told] = {}
        self._stale = False
        self._outcome = Outcome()
        self.changed = asyncio.Event()

    @property
    def address6(self) -> str:
        return self._outcome.address6

    @property
    def changes(self) -> Mapping[str, int]:
        """On this machine, by kind."""
        return Counter(key(change)[0] for change in self._preparer.done)

    def counted(self) -> Mapping[tuple[str, str], int]:
        """As Preparer's."""
        return self._preparer.counted()

    def reason(self, load_balancer: str) -> str:
        """Why this node does not serve for what the load balancer listens for; empty if it does."""
        return self._outcome.reasons.get(load_balancer, "this node is being prepared")

    async def hear(self, load_balancer: str, told: Told) -> None:
        """Returns when everything was tried."""
        if self._told.get(load_balancer) != told:
            self._told[load_balancer] = told
            self._stale = True
            await asyncio.sleep(GATHER_S)
        await self._look(only_if_stale=True)

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            changed = self.changed
            try:
                async with asyncio.timeout(RETRY_S if any(self._outcome.reasons.values()) else CHECK_S):
                    await changed.wait()
            except TimeoutError:
                if self._told:
                    await self._look()

    async def undo(self) -> None:
        """Say what could not be."""
        if self._preparer.done:
            await asyncio.sleep(SETTLE_S)
        try:
            whole = await self._run(self._preparer.undo)
        except GaleError as error:
            log.warning("this machine is not as it was", reason=str(error))
            return
        if not whole:
            log.warning("this machine is not as it was: gale-node --undo tries again")

    async def _look(self, only_if_stale: bool = False) -> None:
        async with self._lock:
            if only_if_stale and not self._stale:
                return
            self._stale = False
            told = dict(self._told)
            outcome = await self._run(lambda: self._preparer.bring_about(told))
            before, self._outcome = self._outcome, outcome
        if before == outcome:
            return
        for name, reason in outcome.reasons.items():
            if reason and reason != before.reasons.get(name):
                log.warning("this node is not prepared, trying again", load_balancer=name, reason=reason)
            elif before.reasons.get(name) and not reason:
                log.info("this node is prepared", load_balancer=name)
        self.changed.set()
        self.changed = asyncio.Event()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
