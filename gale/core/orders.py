"""What operators order, carried out on a draft of the next state. Pure, and a part of apply.py.

An order that finds things as it wants them changes nothing and is no error: a script may give it again. Each that does
change something is recorded with who gave it and why, also where the node's phase stays what it is.

A build that does not know a kind of command skips it, and its state would no longer be that of the others. So an order
of a kind that came later is taken only while every load balancer says that its version knows it (`too_new`).
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from gale.core.commands import Ban, Command, Drain, Given, HandOver, Noted, Order, SetWeight, Unban
from gale.core.draft import Draft
from gale.core.outcome import Applied, Outcome, Rejected
from gale.core.state import ClusterState, Node, Phase

WEIGHT_MAX = 1_000
BAN_MAX_MS = 366 * 24 * 3_600_000
WHO_MAX, WHY_MAX, WORDS_MAX = 120, 200, 200
SINCE: Mapping[type[Order], tuple[int, int]] = dict.fromkeys((Ban, Unban, SetWeight, HandOver, Noted), (0, 2))
"""Kinds of orders that were not always there, and the version that brought them."""

LEAVING_SINCE = (0, 2)


def giver(command: Command) -> str:
    """Who ordered it; empty for what nobody did, or did not say."""
    return command.given.who[:WHO_MAX] if isinstance(command, Order) else ""


def too_new(state: ClusterState, order: Order) -> str:
    """Why an order must not enter the log yet; empty when it may."""
    return _too_old(state, SINCE.get(type(order), (0, 0)))


def may_leave(state: ClusterState) -> bool:
    """Whether every load balancer knows what a node means that is about to stop."""
    return not _too_old(state, LEAVING_SINCE)


def _too_old(state: ClusterState, since: tuple[int, int]) -> str:
    old = [lb for _, lb in sorted(state.load_balancers.items()) if _version(lb.version) < since]
    if not old:
        return ""
    return (
        f"load balancer {old[0].address} runs gale {old[0].version}, which does not know this order: upgrade it first"
    )


def carry_out(draft: Draft, order: Order) -> Outcome:
    """Take an order; Rejected when it makes no sense."""
    if isinstance(order, HandOver):
        if order.to and order.to not in draft.load_balancers:
            return Rejected(f"no load balancer is at {order.to}")
        to = f"to be {order.to}" if order.to else "to be another one"
        draft.record("leader", draft.leader or "none", to, _cause("an operator asks for it", order.given))
        return Applied(draft.transitions())
    if isinstance(order, Noted):
        subject, before, after = (text[:WORDS_MAX] for text in (order.subject, order.before, order.after))
        draft.record(subject, before, after, _cause(order.cause[:WORDS_MAX], order.given))
        return Applied(draft.transitions())
    node = draft.nodes.get(order.node)
    if node is None:
        return Rejected(f"no node is called {order.node}")
    match order:
        case Drain():
            _drain(draft, node, order)
        case Ban():
            if not 0 <= order.for_ms <= BAN_MAX_MS:
                return Rejected("a ban lasts a year at most, or until it is lifted")
            _ban(draft, node, order)
        case Unban():
            if node.phase is Phase.BANNED:
                cause = _cause("an operator lifts its ban", order.given)
                draft.turn(node, Phase.JOINING, cause, fails=0, checks={}, banned_until_ms=None)
        case SetWeight():
            if not 0 <= order.weight <= WEIGHT_MAX:
                return Rejected(f"weight {order.weight}: 1 to {WEIGHT_MAX} is allowed, or 0 for the node's own")
            _set_weight(draft, node, order)
    return Applied(draft.transitions())


def _drain(draft: Draft, node: Node, order: Drain) -> None:
    if node.drained == order.on:
        return
    node, phase = draft.put(replace(node, drained=order.on)), node.phase
    cause = _cause("an operator drains it" if order.on else "an operator ended its draining", order.given)
    if order.on and phase is Phase.ROUTING:
        draft.turn(node, Phase.DRAINING, cause)
    elif not order.on and phase is Phase.DRAINING and not node.rests:
        draft.turn(node, Phase.ROUTING, cause)
    else:
        words = [phase.value, f"{phase.value}, to be drained"]
        before, after = words if order.on else reversed(words)
        draft.record(f"node {node.info.id}", before, after, cause)


def _ban(draft: Draft, node: Node, order: Ban) -> None:
    until_ms = draft.clock_ms + order.for_ms if order.for_ms else None
    cause = _cause("an operator bans it", order.given)
    if node.phase is not Phase.BANNED:
        draft.turn(node, Phase.BANNED, cause, checks={}, banned_until_ms=until_ms)
    elif node.banned_until_ms != until_ms:
        before, after = ("banned for a while" if known else "banned" for known in (node.banned_until_ms, until_ms))
        draft.record(f"node {node.info.id}", before, after, cause)
        draft.put(replace(node, banned_until_ms=until_ms))


def _set_weight(draft: Draft, node: Node, order: SetWeight) -> None:
    if order.weight == node.ordered_weight:
        return
    after = draft.put(replace(node, ordered_weight=order.weight))
    whose = "an operator sets its weight" if order.weight else "an operator gives it its own weight back"
    words = f"weight {node.weight}", f"weight {after.weight}"
    draft.record(f"node {node.info.id}", words[0], words[1], _cause(whose, order.given))


def _cause(what: str, given: Given) -> str:
    return f"{what}: {given.why[:WHY_MAX]}" if given.why else what


def _version(text: str) -> tuple[int, ...]:
    """Major and minor; what cannot be read is older than all."""
    found = re.match(r"(\d{1,6})\.(\d{1,6})", text)
    return (int(found[1]), int(found[2])) if found else ()
