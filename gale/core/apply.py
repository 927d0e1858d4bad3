"""The one function that makes the next state: apply(state, proposal) -> (state, outcome).

It is total: whatever the proposal says, it returns. It reads no clock and leaves no trace: equal states and equal
proposals give equal results on every load balancer, today and when the log is replayed next year.

    joining ──rises──> routing ──falls──> failed ──rises──> routing
       ^                 │  ^ └─ too often ──> banned ──lifted──> joining
       │           drain │  │ undrain
     checks              v  │
       └── left <─────── draining ──falls──> failed (no fail is counted)

    any phase but banned ──goodbye──> left (no fail is counted)
    any phase ──an operator bans it──> banned
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gale.core.commands import (
    Announce,
    Ban,
    Barrier,
    Drain,
    Goodbye,
    HandOver,
    LiftBans,
    Missed,
    Noted,
    NotServing,
    Observation,
    Passed,
    Proposal,
    Report,
    SetAlive,
    SetWeight,
    Unban,
)
from gale.core.draft import Draft
from gale.core.health import Judgement, judge
from gale.core.membership import check_members
from gale.core.once import stale
from gale.core.orders import carry_out, giver
from gale.core.outcome import Applied, Outcome, Refusal, Rejected
from gale.core.shared import SLOTS
from gale.core.slots import SlotTable, rebalance
from gale.core.state import ClusterState, LoadBalancer, Node, NodeInfo, Phase, Reference


def apply(state: ClusterState, proposal: Proposal, index: int = 0) -> tuple[ClusterState, Outcome]:
    """`index`: where the proposal stands in the log; events name it, and nothing depends on it."""
    if reason := stale(state, proposal.origin):
        return state, reason
    command = proposal.command
    outcome: Outcome
    draft = Draft(state, command.time_ms, giver(command) or proposal.origin.proposer, index)
    draft.note(proposal.origin)
    match command:
        case Report():
            outcome = _report(draft, command)
        case Announce():
            outcome = _announce(draft, command)
        case SetAlive():
            outcome = _set_alive(draft, command)
        case LiftBans():
            outcome = _lift_bans(draft)
        case Drain() | Ban() | Unban() | SetWeight() | HandOver() | Noted():
            outcome = carry_out(draft, command)
        case Barrier():
            outcome = Applied()
    new = draft.finish()
    return _settle(state, new, draft.touched) if draft.moves_flows else new, outcome


def screen(state: ClusterState, report: Report) -> tuple[Report, tuple[Refusal, ...]]:
    """The part of a report that the state would take now, and what it would refuse.

    Proposers screen first, so that a node which is refused for good does not fill the log with every check."""
    draft = Draft(state, report.time_ms)
    taken, refusals = [], []
    for observation in report.observations:
        if reason := _observe(draft, report.load_balancer, observation):
            refusals.append(_refusal(observation, reason))
        else:
            taken.append(observation)
    return replace(report, observations=tuple(taken)), tuple(refusals)


def _report(draft: Draft, report: Report) -> Outcome:
    reporter = report.load_balancer
    if reporter not in draft.load_balancers:
        return Rejected(f"load balancer {reporter} reports before it announced itself")
    if draft.state.ignored(reporter):
        return Rejected(f"load balancer {reporter} is ignored: {draft.state.differs(reporter)}")
    weighed = [(observation, _observe(draft, reporter, observation)) for observation in report.observations]
    refusals = tuple(_refusal(observation, reason) for observation, reason in weighed if reason)
    return Applied(draft.transitions(), refusals)


def _refusal(observation: Observation, reason: str) -> Refusal:
    return Refusal(observation.node.id if isinstance(observation, Passed) else observation.node, reason)


def _observe(draft: Draft, reporter: str, observation: Observation) -> str | None:
    """Take one observation; the reason when it is refused."""
    if isinstance(observation, Passed):
        return _passed(draft, reporter, observation)
    node = draft.nodes.get(observation.node)
    if node is None:
        return "unknown node"
    if node.phase is Phase.LEFT and isinstance(observation, Goodbye):
        return None  # said to another load balancer too
    if node.phase in (Phase.BANNED, Phase.LEFT):
        return f"the node is {node.phase.value}"
    match observation:
        case Missed():
            if reporter in node.checks:
                node = draft.put(replace(node, checks={**node.checks, reporter: 0}))
                _rejudge(draft, node)
        case NotServing():
            node = draft.put(replace(node, checks={}))
            if node.phase.forwards:
                _fall(draft, node, f"says at {reporter} that it is not serving")
        case Goodbye():
            draft.turn(node, Phase.LEFT, f"said goodbye to {reporter}", checks={})
    return None


def _passed(draft: Draft, reporter: str, observation: Passed) -> str | None:
    info, needed = observation.node, draft.policy.checks_before_routing
    if reason := impostor(draft, info) or _serves_nothing(draft, info):
        return reason
    node = draft.nodes.get(info.id)
    if node is None or node.info.address != info.address:
        node = replace(node, info=info, checks={}) if node else draft.admit(info)
        if node is None:
            return "no room: as many nodes as there can be are known and none of them is gone"
    if node.phase is Phase.BANNED:
        return "the node is banned"
    if node.phase is Phase.LEFT:
        node = draft.turn(node, Phase.JOINING, f"checks in at {reporter} again")
    count = max(1, min(observation.count, needed))
    node = draft.put(replace(node, info=info, checks={**node.checks, reporter: count}))
    if node.phase is Phase.ROUTING and info.leaving:
        node = draft.turn(node, Phase.DRAINING, f"says at {reporter} that it is about to stop")
    elif node.phase is Phase.DRAINING and not node.rests:
        node = draft.turn(node, Phase.ROUTING, f"says at {reporter} that it goes on")
    _rejudge(draft, node)
    return None


def impostor(known: ClusterState | Draft, info: NodeInfo) -> str | None:
    """Why this cannot be the node it says it is: a name has one address and an address one name, while either is in
    use or banned. What an impostor says must not be taken for the other's words: neither its checks nor its silence."""
    node = known.nodes.get(info.id)
    if node and node.info.address != info.address and (node.phase is Phase.BANNED or any(node.checks.values())):
        return f"this name is taken by the node at {node.info.address}: give one of them another [node] name"
    for address in info.addresses:
        for name in known.addresses.get(address, ()):
            if name != info.id:
                if known.nodes[name].phase is Phase.BANNED:
                    return f"its address {address} is banned as node {name}"
                if any(known.nodes[name].checks.values()):
                    return f"its address {address} is taken by node {name}"
    return None


def _serves_nothing(draft: Draft, info: NodeInfo) -> str | None:
    services = [service.name for service in draft.services]
    if not info.services or not services or set(info.services) & set(services):
        return None
    return f"none of its services {', '.join(info.services)} is here: there are {', '.join(services)}"


def _rejudge(draft: Draft, node: Node) -> None:
    needed, voters = draft.policy.checks_before_routing, draft.voters
    match judge(node.checks, node.info.reports_to, voters, needed):
        case Judgement.RISES if node.phase in (Phase.JOINING, Phase.FAILED):
            phase = Phase.DRAINING if node.rests else Phase.ROUTING
            vouching = sorted(a for a, count in node.checks.items() if a in voters and count >= needed)
            draft.turn(node, phase, f"{needed} checks passed at {', '.join(vouching)}")
        case Judgement.FALLS if node.phase.forwards:
            missing = sorted(a for a, count in node.checks.items() if a in voters and count == 0)
            _fall(draft, node, f"checks missed at {', '.join(missing)}")


def _fall(draft: Draft, node: Node, cause: str) -> None:
    fails = node.fails + (node.phase is Phase.ROUTING)
    limit = draft.policy.black_list_after_fails
    if node.phase is Phase.ROUTING and limit > 0 and fails >= limit:
        until_ms = draft.clock_ms + draft.policy.black_list_expiry_ms
        draft.turn(
            node, Phase.BANNED, f"{cause}, fail {fails} of {limit}", fails=fails, checks={}, banned_until_ms=until_ms
        )
    else:
        draft.turn(node, Phase.FAILED, cause, fails=fails)


def _announce(draft: Draft, command: Announce) -> Outcome:
    address, before = command.load_balancer, (draft.voters, draft.policy)
    if command.leads:
        draft.lead(address)
        draft.refer(Reference(command.shared, command.enforces), f"{address} leads")
    announced = LoadBalancer(address, command.api, command.version, command.shared, members=command.members)
    if (known := draft.load_balancers.get(address)) != announced:
        draft.put_load_balancer(announced, "announced itself" if known is None else "announced itself anew")
    _put_in_force(draft, command.members)
    if (draft.voters, draft.policy) != before:
        _rejudge_all(draft)
    return Applied(draft.transitions())


def _put_in_force(draft: Draft, members: tuple[str, ...]) -> None:
    """Put a list of load balancers in force once all that are on it have announced it, and forget the others."""
    known = [draft.load_balancers.get(address) for address in members]
    all_say_so = bool(members) and all(lb is not None and lb.members == members for lb in known)
    if members == draft.members or not all_say_so or check_members(draft.members, members):
        return
    draft.put_members(members)
    for _, node in sorted(draft.nodes.items()):
        if not node.checks.keys() <= set(members):
            node = draft.put(replace(node, checks={a: count for a, count in node.checks.items() if a in members}))
            if node.phase.forwards and not node.checks:
                draft.turn(node, Phase.FAILED, "it reported to load balancers that are none any more")


def _set_alive(draft: Draft, command: SetAlive) -> Outcome:
    known = draft.load_balancers.get(command.load_balancer)
    if known is None:
        return Rejected(f"load balancer {command.load_balancer} has not announced itself")
    if known.alive != command.alive:
        draft.put_load_balancer(
            replace(known, alive=command.alive), f"the leader {'found' if command.alive else 'lost'} it"
        )
        _rejudge_all(draft)
    return Applied(draft.transitions())


def _rejudge_all(draft: Draft) -> None:
    for _, node in sorted(draft.nodes.items()):
        _rejudge(draft, node)


def _lift_bans(draft: Draft) -> Outcome:
    for _, node in sorted(draft.nodes.items()):
        if node.banned_until_ms is not None and node.banned_until_ms <= draft.clock_ms:
            draft.turn(node, Phase.JOINING, "its ban has ended", fails=0, checks={}, banned_until_ms=None)
    lifted = draft.transitions()
    return Applied(lifted) if lifted else Rejected("no ban has ended yet")


def _settle(old: ClusterState, new: ClusterState, touched: Iterable[str]) -> ClusterState:
    """Bring the slot tables in line with the nodes, and number the view if it changed. Of many nodes only those that
    were touched can have changed it themselves."""
    tables = {}
    for service in new.shared.services:
        table = old.tables.get(service.name)
        weights = new.weights(service.name)
        if table is None:
            table = rebalance(SlotTable.empty(SLOTS), weights)
        elif weights != old.weights(service.name):
            table = rebalance(table, weights)
        tables[service.name] = table
    changed = _slots(old.tables) != _slots(tables) or _forwarding(old, touched) != _forwarding(new, touched)
    return replace(new, tables=tables, generation=new.generation + changed)


def _slots(tables: Mapping[str, SlotTable]) -> dict[str, bytes]:
    return {name: table.owners for name, table in tables.items()}


def _forwarding(state: ClusterState, names: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """What the view says of these nodes."""
    known = [node for name in names if (node := state.nodes.get(name)) and node.phase.forwards]
    return {node.number: node.info.addresses for node in known}
