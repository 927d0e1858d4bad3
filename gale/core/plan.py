"""From the view the maps hold to the view they should hold: the writes, in a safe order.

The maps are not changed in one step and gale-lb may die between two writes, so the order is the safety:

1. nodes that appear or move are written first: nothing points at them yet;
2. then each service's slots, replaced in one step: they point at old and new nodes, and all of these exist;
3. nodes that are gone are cleared last: nothing points at them any more.

Cut off after any write, every slot names a node that is there. `after` is the same statement as code: it gives the
view the maps hold once writes are done, and refuses a write that would break the rule.
"""

from dataclasses import dataclass, replace

from gale.core.view import Addresses, View


@dataclass(frozen=True, slots=True)
class SetNode:
    """Write the entry of a node: `number` 1..65535, `address` IPv4 in dotted form, `address6` IPv6 or empty."""

    number: int
    address: str
    address6: str = ""


@dataclass(frozen=True, slots=True)
class SetSlots:
    """Replace a service's slot table in one step. `owners`: unsigned 16-bit node numbers, host byte order."""

    service: str
    owners: bytes


@dataclass(frozen=True, slots=True)
class ClearNode:
    """Clear the entry of a node that no slot names."""

    number: int


Write = SetNode | SetSlots | ClearNode


def plan(old: View, new: View) -> list[Write]:
    """The writes that lead from `old` to `new`; empty when nothing differs. A running service is never removed."""
    appear = [SetNode(n, *addresses) for n, addresses in sorted(new.nodes.items()) if old.nodes.get(n) != addresses]
    slots = [SetSlots(name, owners) for name, owners in sorted(new.slots.items()) if old.slots.get(name) != owners]
    gone = [ClearNode(n) for n in sorted(old.nodes.keys() - new.nodes.keys())]
    return [*appear, *slots, *gone]


def parted(view: View, write: Write) -> int | None:
    """The number, if any, whose flows have no node any more once this is written over the view. A draining node keeps
    its entry, and so its flows."""
    match write:
        case ClearNode(number):
            return number
        case SetNode(number, address) if number in view.nodes and view.nodes[number].address != address:
            return number
    return None


def after(view: View, *writes: Write) -> View:
    """The view once these are done, in order. Raises ValueError for one that would leave a slot without its node."""
    nodes, slots = dict(view.nodes), dict(view.slots)
    owners = {service: view.owners(service) for service in slots}
    for write in writes:
        match write:
            case SetNode(number, address, address6):
                nodes[number] = Addresses(address, address6)
            case SetSlots(service, table):
                slots[service] = table
                owners[service] = replace(view, slots=slots).owners(service)
                if missing := owners[service] - nodes.keys():
                    raise ValueError(f"slots of {service} name nodes that have no entry: {sorted(missing)}")
            case ClearNode(number):
                if used := [service for service, numbers in owners.items() if number in numbers]:
                    raise ValueError(f"node {number} is still named by slots of {', '.join(used)}")
                nodes.pop(number, None)
    return replace(view, nodes=nodes, slots=slots)
