"""How a node is reached: the kernel's route to it, and the MAC address of the next hop.

The packet path does not ask the kernel about neighbours, so their MAC addresses are copied into the map of nodes. Two
things follow. Nobody else makes the kernel look for a neighbour that only forwarded packets need: `resolve` asks it to,
and the answer is there the next time. And an entry the kernel drops because it is not in use is not a lost neighbour:
what was known stays good until the kernel learns something else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from socket import AF_INET
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from gale.dataplane.netlink import ask

# linux/neighbour.h
_NUD_REACHABLE = 0x02
_NUD_STALE = 0x04
_NUD_DELAY = 0x08
_NUD_PROBE = 0x10
_NUD_PERMANENT = 0x80
_MAC_KNOWN = _NUD_REACHABLE | _NUD_STALE | _NUD_DELAY | _NUD_PROBE | _NUD_PERMANENT
_CERTAIN = _NUD_REACHABLE | _NUD_PERMANENT
_NTF_USE = 0x01


@dataclass(frozen=True, slots=True)
class NextHop:
    """`address` on the interface `ifindex`: the node itself, or the router before it. MACs are six bytes."""

    address: str
    ifindex: int
    interface_mac: bytes
    mac: bytes | None


def resolve(nodes: Iterable[str]) -> dict[str, NextHop]:
    """The next hop of each node address that has a route. `mac` is None while the kernel does not know it."""

    def question(ipr: Any) -> dict[str, NextHop]:
        macs = {link["index"]: _mac(link.get_attr("IFLA_ADDRESS")) for link in ipr.get_links()}
        neighbours = {
            (entry["ifindex"], entry.get_attr("NDA_DST")): entry for entry in ipr.get_neighbours(family=AF_INET)
        }
        found = {}
        for node in nodes:
            try:
                route = ipr.route("get", dst=node)[0]
            except NetlinkError:
                continue
            ifindex, address = route.get_attr("RTA_OIF"), route.get_attr("RTA_GATEWAY") or node
            neighbour = neighbours.get((ifindex, address))
            state = neighbour["state"] if neighbour else 0
            if not state & _CERTAIN:
                ipr.neigh("replace", family=AF_INET, dst=address, ifindex=ifindex, flags=_NTF_USE, state=0)
            mac = _mac(neighbour.get_attr("NDA_LLADDR")) if neighbour and state & _MAC_KNOWN else None
            found[node] = NextHop(address, ifindex, macs[ifindex] or bytes(6), mac)
        return found

    return ask(question)


def _mac(text: str | None) -> bytes | None:
    return bytes.fromhex(text.replace(":", "")) if text else None
