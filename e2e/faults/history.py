"""Whether what operators were told about one node can be explained by one order happening after the other.

Each order that is known to be done must have happened at one moment between its begin and its end; one that is not
known to be done may have happened at any moment after its begin, or never. What a read found is the last order before
it. Such an explanation is searched for by trying (Wing and Gong), with what was tried remembered (Lowe).

Orders that are not known to be done are all alike but for what they order: only how many of them were used up counts.
"""

import bisect
from collections.abc import Sequence

from gale.lab.orders import Order


def linearizable(orders: Sequence[Order], node: str) -> bool:
    told = sorted((o for o in orders if o.node == node and o.error is None), key=lambda order: order.began_s)
    maybe = {
        effect: sorted(o.began_s for o in orders if o.node == node and o.error is not None and o.kind == kind)
        for effect, kind in ((True, "drain"), (False, "undrain"))
    }
    seen = set()
    # in order: what is done of those behind the first that is not, that first one, how the node stands, what was used
    waiting = [(frozenset[int](), 0, drained, 0, 0) for drained in (False, True)]
    while waiting:
        done, first, drained, drains, undrains = waiting.pop()
        while first in done:
            done, first = done - {first}, first + 1
        if first == len(told):
            return True
        if (done, first, drained, drains, undrains) in seen:
            continue
        seen.add((done, first, drained, drains, undrains))
        deadline_s = _deadline(told, first, done)
        if not drained and drains < bisect.bisect_right(maybe[True], deadline_s):
            waiting.append((done, first, True, drains + 1, undrains))
        if drained and undrains < bisect.bisect_right(maybe[False], deadline_s):
            waiting.append((done, first, False, drains, undrains + 1))
        for i in range(first, len(told)):
            if told[i].began_s > deadline_s:
                break
            if i not in done and (told[i].kind != "read" or told[i].drained == drained):
                after = drained if told[i].kind == "read" else told[i].kind == "drain"
                waiting.append((done | {i}, first, after, drains, undrains))
    return False


def _deadline(told: Sequence[Order], first: int, done: frozenset[int]) -> float:
    """When the next order at the latest has happened: nothing that begins later can come before it."""
    deadline_s = told[first].ended_s
    for i in range(first + 1, len(told)):
        if told[i].began_s > deadline_s:
            break
        if i not in done:
            deadline_s = min(deadline_s, told[i].ended_s)
    return deadline_s
