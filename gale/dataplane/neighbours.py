"""How a node is reached: the kernel's route to it, and the MAC address of the next hop.

The packet path does not ask the kernel about neighbours, so their MAC addresses are copied into the map of nodes. Two
things follow. Nobody else makes the kernel look for a neighbour that only forwarded packets need: `resolve` asks it to,
and the answer is there the next time. And an entry the kernel drops because it is not in use is not a lost neighbour:
what was known stays good until the kernel learns something else.
"""

import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from gale.dataplane.rtnetlink import Answer, Question, ask_all
from gale.errors import DataplaneError

# linux/rtnetlink.h
_RTM_GETLINK, _RTM_GETROUTE, _RTM_NEWNEIGH, _RTM_GETNEIGH = 18, 26, 28, 30
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_NDA_DST, _NDA_LLADDR = 1, 2
_IFLA_ADDRESS = 1
_NLM_F_ACK, _NLM_F_REPLACE, _NLM_F_CREATE = 0x4, 0x100, 0x400
_ROUTE = struct.Struct("=BB10x")  # struct rtmsg: family, length of the destination in bits
_NEIGHBOUR = struct.Struct("=BxxxiHBx")  # struct ndmsg: family, interface, state, flags
_LINK = struct.Struct("=xxxxi8x")  # struct ifinfomsg: interface

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
    wanted = list(nodes)
    try:
        routes = {
            node: hop for node, answer in zip(wanted, _routes(wanted), strict=True) if (hop := _hop(node, answer))
        }
        hops = sorted(set(routes.values()))
        macs = dict(zip(hops, _macs(hops), strict=True))
        interfaces = sorted({ifindex for ifindex, _ in hops})
        own = dict(zip(interfaces, _interface_macs(interfaces), strict=True))
    except OSError as error:
        raise DataplaneError(f"the kernel does not say how nodes are reached: {error}") from error
    return {
        node: NextHop(socket.inet_ntoa(address), ifindex, own[ifindex], macs[ifindex, address])
        for node, (ifindex, address) in routes.items()
    }


def _routes(nodes: list[str]) -> list[Answer]:
    head = _ROUTE.pack(socket.AF_INET, 32)
    return ask_all([Question(_RTM_GETROUTE, head, {_RTA_DST: socket.inet_aton(node)}) for node in nodes])


def _hop(node: str, answer: Answer) -> tuple[int, bytes] | None:
    """Interface and address of the next hop; None if there is no route."""
    if answer.error or _RTA_OIF not in answer.attributes:
        return None
    ifindex = int.from_bytes(answer.attributes[_RTA_OIF], sys.byteorder)
    return ifindex, answer.attributes.get(_RTA_GATEWAY) or socket.inet_aton(node)


def _macs(hops: list[tuple[int, bytes]]) -> list[bytes | None]:
    """The MAC addresses of neighbours, where the kernel knows them. It is asked to look for those it is not sure of."""

    def question(kind: int, hop: tuple[int, bytes], *, use: int = 0, flags: int = 0) -> Question:
        ifindex, address = hop
        return Question(kind, _NEIGHBOUR.pack(socket.AF_INET, ifindex, 0, use), {_NDA_DST: address}, flags)

    answers = ask_all([question(_RTM_GETNEIGH, hop) for hop in hops])
    states = [_NEIGHBOUR.unpack(answer.head)[2] if answer.head else 0 for answer in answers]
    flags = _NLM_F_ACK | _NLM_F_REPLACE | _NLM_F_CREATE
    unsure = [hop for hop, state in zip(hops, states, strict=True) if not state & _CERTAIN]
    ask_all([question(_RTM_NEWNEIGH, hop, use=_NTF_USE, flags=flags) for hop in unsure])
    return [
        answer.attributes.get(_NDA_LLADDR) if state & _MAC_KNOWN else None
        for answer, state in zip(answers, states, strict=True)
    ]


def _interface_macs(interfaces: list[int]) -> list[bytes]:
    """Six zeroes for an interface that has none."""
    answers = ask_all([Question(_RTM_GETLINK, _LINK.pack(ifindex), {}) for ifindex in interfaces])
    return [answer.attributes.get(_IFLA_ADDRESS, b"") or bytes(6) for answer in answers]
