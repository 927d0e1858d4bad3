"""Trouble in a lab under real traffic, and what was seen of it, in words and figures.

The story of a round: a node is killed, taken out, comes back; the leading load balancer is killed, another one leads
while the kernel of the killed one goes on forwarding, and it comes back level. Every wait has a bound, and a promise
that does not come true within it ends the demo with one line that says which.

Requests may fail in one situation only: a node was killed and the load balancers have not noticed yet. A gale-lb that
starts goes on with the flows that it finds in the kernel. Any other failed request ends the demo as an error.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gale.errors import LabError
from gale.lab import view
from gale.lab.cluster import Lab
from gale.lab.feed import Traffic, Watch
from gale.lab.incidents import Window, kinds, shares, unannounced
from gale.lab.scene import Scene, observe
from gale.lab.tally import Tally, sum_of
from gale.lab.topology import Instance, api_server, endpoint

FIRST_ANSWER_WITHIN_S = 20.0  # two programs start for it
REMOVED_WITHIN_S = 4.0  # the lab's checks_timeout is one second
BACK_WITHIN_S = 30.0
LEADER_WITHIN_S = 10.0
LEVEL_WITHIN_S = 30.0
WATCHED_S = 2.5  # the traffic, between two steps
LOOK_S = 0.02
SHOW_S = 0.2
IN_FLIGHT_S = 4.0  # how long before a kill a request may have begun that the kill breaks
NOTICED_S = 0.15  # from a load balancer's decision until the watcher has seen it


class Stage(Protocol):
    """Where the story is told."""

    def say(self, text: str) -> None: ...

    def show(self, scene: Scene) -> None:
        """Called about five times a second."""
        ...


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the summary."""

    what: str
    value: str


class Demo:
    """Plays rounds in a lab that is up.

    check      called all the time, and raises what ends the demo early
    watched_s  for how long the traffic is watched between two steps
    """

    def __init__(
        self,
        lab: Lab,
        traffic: Traffic,
        watch: Watch,
        stage: Stage,
        check: Callable[[], None],
        watched_s: float = WATCHED_S,
    ) -> None:
        self._lab = lab
        self._topology = lab.topology
        self._traffic = traffic
        self._watch = watch
        self._stage = stage
        self._check = check
        self._watched_s = watched_s
        self._shown_s = 0.0
        self._windows: list[Window] = []

    def first_answers(self) -> None:
        """Wait until a request has been answered through every load balancer, and all name the leader."""

        def missing() -> str | None:
            servers = self._topology.api_servers
            if unknown := view.missing_for_leader(self._watch.latest, servers, other_than=None):
                return unknown
            totals = self._traffic.totals
            silent = [end for end in self._topology.endpoints if end not in totals or not totals[end].ok]
            return f"none through {', '.join(silent)}" if silent else None

        self._until(missing, FIRST_ANSWER_WITHIN_S, "a request is answered through every load balancer")

    def round(self, number: int) -> list[Figure]:
        """One round; `number` chooses the node, so that rounds take turns."""
        node = self._topology.node_instances[number % self._topology.nodes]
        self._all_well()
        figures = [*self._lose_a_node(node), *self._bring_back_the_node(node)]
        leader = self._leader()
        figures += [*self._lose_the_leader(leader), *self._bring_back_the_lb(leader)]
        if surprises := unannounced(self._traffic.samples.copy(), self._windows):
            raise LabError(f"{len(surprises)} requests failed that should not have, the first: {surprises[0].kind}")
        return figures

    def totals(self) -> list[Figure]:
        """Everything since the first request."""
        whole = sum_of(self._traffic.totals.values())
        return [
            Figure("requests answered in all", f"{whole.ok}; {shares(whole.nodes)}"),
            Figure("requests failed in all", kinds(whole.failures)),
            Figure(
                "latency, median and 99th percentile", f"{whole.percentile_ms(50)} ms, {whole.percentile_ms(99)} ms"
            ),
        ]

    # The steps: each says what it does, does it, waits for what must follow, and says what it saw

    def _all_well(self) -> None:
        self._stage.say(f"{self._leader().name} leads, and clients send requests to every load balancer.")
        seen = self._quiet(time.monotonic())
        self._stage.say(f"{seen.ok} answered in {self._watched_s:g} s, {seen.failed} failed; {shares(seen.nodes)}.")

    def _lose_a_node(self, node: Instance) -> list[Figure]:
        self._stage.say(f"Killing {node.name} with SIGKILL, its agent and its HTTP server: nobody is told.")
        killed = time.monotonic()
        self._lab.kill(node.name)
        removed = self._until(
            lambda: view.missing_for_removal(self._watch.latest, self._topology.api_servers, node.name),
            REMOVED_WITHIN_S,
            f"{node.name} is taken out on every load balancer",
        )
        self._windows.append(Window(killed - IN_FLIGHT_S, removed + NOTICED_S))
        took = f"{removed - killed:.2f} s"
        self._stage.say(f"Every load balancer has taken {node.name} out, {took} after its death.")
        since = self._quiet(removed + NOTICED_S)
        lost = self._traffic.between(killed - SHOW_S).failures
        self._stage.say(f"Failed until then: {kinds(lost)}. Since: {since.ok} answered, {shares(since.nodes)}.")
        return [
            Figure(f"{node.name} killed: taken out everywhere after", took),
            Figure("requests that failed until then", kinds(lost)),
        ]

    def _bring_back_the_node(self, node: Instance) -> list[Figure]:
        self._stage.say(f"Starting {node.name} again.")
        started = time.monotonic()
        self._lab.start(node.name)
        back = self._until(
            lambda: view.missing_for_routing(self._watch.latest, self._topology.api_servers, [node.name]),
            BACK_WITHIN_S,
            f"{node.name} routes again on every load balancer",
            starting=node,
        )
        took = f"{back - started:.2f} s"
        self._stage.say(f"{node.name} routes again on every load balancer after {took}.")
        self._until(
            lambda: None if self._traffic.between(back + NOTICED_S).nodes[node.name] else "no request reached it",
            BACK_WITHIN_S,
            f"{node.name} answers again",
        )
        seen = self._quiet(back + NOTICED_S)
        self._stage.say(f"{seen.ok} answered since, {seen.failed} failed; {shares(seen.nodes)}.")
        return [Figure(f"{node.name} started: routes everywhere after", took)]

    def _lose_the_leader(self, lb: Instance) -> list[Figure]:
        others = [api_server(other) for other in self._topology.lbs if other != lb]
        self._stage.say(f"Killing gale-lb on {lb.name}, the leader. Its programs stay in the kernel.")
        killed = time.monotonic()
        self._lab.kill(lb.name)
        led = self._until(
            lambda: view.missing_for_leader(self._watch.latest, others, other_than=lb.private),
            LEADER_WITHIN_S,
            "the others agree on a new leader",
        )
        took = f"{led - killed:.2f} s"
        self._stage.say(f"{self._leader().name} leads {took} after the death of {lb.name}.")
        self._quiet(led)
        alone = self._traffic.between(killed, endpoint=endpoint(lb))
        self._stage.say(
            f"The kernel of {lb.name} has forwarded {alone.ok} requests without its gale-lb; {alone.failed} failed."
        )
        return [
            Figure(f"{lb.name} killed, the leader: the next one led after", took),
            Figure(f"requests forwarded by the kernel of {lb.name} meanwhile", f"{alone.ok}, {alone.failed} failed"),
        ]

    def _bring_back_the_lb(self, lb: Instance) -> list[Figure]:
        self._stage.say(f"Starting gale-lb on {lb.name} again, in the middle of the traffic.")
        started = time.monotonic()
        self._lab.start(lb.name)
        servers = self._topology.api_servers
        level = self._until(
            lambda: (
                view.missing_for_level(self._watch.latest, servers)
                or view.missing_for_level(self._watch.latest, servers, "applied_index")
            ),
            LEVEL_WITHIN_S,
            f"{lb.name} is level with the others",
            starting=lb,
        )
        took = f"{level - started:.2f} s"
        self._stage.say(f"{lb.name} is level with the others after {took}.")
        seen = self._quiet(started)
        self._stage.say(f"{seen.ok} answered since its start, {seen.failed} failed.")
        return [Figure(f"{lb.name} started: level with the others after", took)]

    # Looking and waiting

    def _leader(self) -> Instance:
        """Which all who answer agree upon: there may be none for a moment."""

        found: list[Instance] = []

        def missing() -> str | None:
            named = view.leader(self._watch.latest.values())
            found[:] = [lb for lb in self._topology.lbs if lb.private == named]
            return None if found else "they name different ones, or none"

        self._until(missing, LEADER_WITHIN_S, "one leader")
        return found[0]

    def _quiet(self, since_s: float) -> Tally:
        """Let time pass, and what the traffic was since then."""
        end = time.monotonic() + self._watched_s
        while time.monotonic() < end:
            self._look()
        return self._traffic.between(since_s)

    def _until(
        self, missing: Callable[[], str | None], within_s: float, what: str, starting: Instance | None = None
    ) -> float:
        """The time at which nothing is missing any more. Raises LabError when that does not come."""
        deadline = time.monotonic() + within_s
        while why := missing():
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {within_s:.0f} s: {why}")
            if starting:
                self._lab.check_running(starting.name)
            self._look()
        return time.monotonic()

    def _look(self) -> None:
        """A short pause, in which the scene is shown and what must run is seen to run."""
        self._check()
        if not (self._traffic.running and self._watch.running):
            raise LabError("the traffic generator or the watcher has ended by itself")
        now = time.monotonic()
        if self._watch.latest and now - self._shown_s >= SHOW_S:
            self._shown_s = now
            traffic = self._traffic
            self._stage.show(
                observe(now, self._topology, traffic.samples.copy(), traffic.totals, self._watch.latest.copy())
            )
        time.sleep(LOOK_S)
