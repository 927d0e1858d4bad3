"""What the page shows of one moment, as data. Rates are made of two moments, by the page itself.

Ten thousand nodes are no reading for people: of those that are looked for a page's worth is told, what is amiss first,
and how many there are. They are gone through in steps, one request at a time, so that whoever asks much waits for
himself and not the loop for him.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gale.core.state import ClusterState, Node, Phase
from gale.dataplane.abi import Verdict, verdicts
from gale.ports import Counters, LocalStatus, Traffic
from gale.rpc.steps import in_steps
from gale.web.families import owners
from gale.web.health import unready

NODES_MAX = 100
EVENTS_MAX = 30
FIND_MAX = 64


@dataclass(frozen=True, slots=True)
class Moment:
    """`clock_s`: of the counters, by a clock that never runs backwards."""

    clock_s: float
    state: ClusterState
    local: LocalStatus
    counters: Counters


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which nodes: a part of the name or address, and a phase; empty: any."""

    find: str = ""
    phase: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Wanted":
        return cls(query.get("find", "")[:FIND_MAX].lower(), query.get("phase", ""))

    def fits(self, node: Node) -> bool:
        if self.phase and node.phase != self.phase:
            return False
        return not self.find or self.find in node.info.id.lower() or any(self.find in a for a in node.info.addresses)


class Picture:
    """Draws moments."""

    def __init__(self) -> None:
        self._verdicts = verdicts()
        self._drawing = asyncio.Lock()

    async def draw(self, moment: Moment, wanted: Wanted) -> dict[str, Any]:
        state, local = moment.state, moment.local
        phases, found, shown = await self._nodes(moment, wanted)
        return {
            "address": local.address,
            "version": local.version,
            "clock_s": moment.clock_s,
            "unready": unready(local, state),
            "troubles": local.troubles,
            "cluster": {
                "leader": local.consensus.leader or "",
                "quorum": local.consensus.quorum,
                "term": local.consensus.term,
                "index": local.consensus.applied_index,
                "generation": local.generation,
                "committed": state.generation,
                "interfaces": local.attachments,
            },
            "load_balancers": [_load_balancer(address, moment) for address in _members(moment)],
            "services": [
                {
                    "name": service.name,
                    "nodes": owners(state.tables.get(service.name)),
                    "port": service.port,
                    "protocols": service.protocols,
                    "mode": service.mode,
                    **asdict(moment.counters.services.get(service.name, Traffic())),
                }
                for service in state.shared.services
            ],
            "verdicts": _counted(self._verdicts, moment.counters.verdicts),
            "phases": {phase.value: phases[phase] for phase in Phase},
            "found": found,
            "nodes": [_node(node, moment) for node in shown],
            "events": [asdict(each) for each in reversed(state.transitions[-EVENTS_MAX:])],
        }

    async def _nodes(self, moment: Moment, wanted: Wanted) -> tuple[Counter[Phase], int, list[Node]]:
        """How many in each phase, how many are looked for, and which of them are shown."""
        phases, amiss, well, found = Counter[Phase](), list[Node](), list[Node](), 0
        degraded = frozenset(moment.local.degraded)
        async with self._drawing:
            async for node in in_steps(moment.state.nodes.values()):
                phases[node.phase] += 1
                if wanted.fits(node):
                    found += 1
                    side = well if node.phase is Phase.ROUTING and node.info.id not in degraded else amiss
                    if len(side) < NODES_MAX:
                        side.append(node)
        return phases, found, [*amiss, *well][:NODES_MAX]


def _members(moment: Moment) -> list[str]:
    return sorted({moment.local.address, *moment.state.load_balancers, *moment.state.members})


def _load_balancer(address: str, moment: Moment) -> dict[str, Any]:
    """As this one knows it."""
    state, local = moment.state, moment.local
    known, raft = state.load_balancers.get(address), local.consensus
    here = address == local.address
    ignored = raft.ignored.get(address, "") or (state.differs(address) if state.ignored(address) else "")
    return {
        "address": address,
        "here": here,
        "leads": address == raft.leader,
        "heard": here or address in raft.connected,
        "version": known.version if known else "",
        "ignored": ignored,
        "differs": raft.differs.get(address, "") or state.differs(address),
    }


def _node(node: Node, moment: Moment) -> dict[str, Any]:
    name = node.info.id
    why = moment.local.not_serving.get(name, "")
    return {
        "name": name,
        "addresses": node.info.addresses,
        "phase": node.phase.value,
        "since_ms": node.since_ms,
        "weight": node.weight,
        "drained": node.drained,
        "fails": node.fails,
        "banned_until_ms": node.banned_until_ms,
        "why": f"does not serve: {why}" if why else node.stopping or node.info.lacks(moment.state.shared.services),
        "taken_away": name in moment.local.degraded,
        **asdict(moment.counters.nodes.get(node.number, Traffic())),
    }


def _counted(known: Iterable[Verdict], counted: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {"name": v.name, "action": v.action.value, "meaning": v.meaning, "packets": counted[v.name]}
        for v in known
        if counted.get(v.name)
    ]
