"""The kernel side of one load balancer: performs the writes of a plan (gale/core/plan.py) on the maps.

What a view does not say is added here, because it differs between load balancers: by which interface a node is reached
and at which MAC address. A node whose next hop is not known yet is written at once, without it; packets for it are
counted as `no_neighbour` until `refresh_neighbours`, to be called every few seconds, finds the answer.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from gale.core.plan import ClearNode, SetNode, SetSlots, Write
from gale.dataplane import attach
from gale.dataplane.maps import Maps
from gale.dataplane.neighbours import NextHop, resolve
from gale.dataplane.program import load
from gale.dataplane.settings import DataplaneSettings

REFRESH_MAX = 500  # nodes: ten milliseconds


@dataclass(frozen=True, slots=True)
class NeighbourChange:
    """A node is reached another way than before: by `after`; None, or one without a MAC, if it cannot be reached."""

    number: int
    address: str
    before: NextHop | None
    after: NextHop | None


class BpfDataplane:
    """Loads on construction, forwards from `attach` on. Raises HostError or DataplaneError.

    The maps start empty: perform the writes for the present view before attaching.
    """

    def __init__(self, settings: DataplaneSettings) -> None:
        self._settings = settings
        self._program = load(settings)
        self._maps = Maps(self._program.module, settings)
        self._nodes: dict[int, tuple[str, NextHop | None]] = {}
        self._refreshed = 0
        self.attachment: attach.Attachment | None = None

    def attach(self) -> None:
        """A program of an earlier gale-lb is replaced atomically. `attachment` then says what came of it."""
        settings = self._settings
        self.attachment = attach.attach(settings.public_interface, settings.private_interface, self._program)

    @property
    def attachments(self) -> Mapping[str, str]:
        """Interface -> how its program is attached: "native", "generic" or "tc"; empty before `attach`."""
        if self.attachment is None:
            return {}
        return {self.attachment.public_interface: self.attachment.public_mode, self.attachment.private_interface: "tc"}

    def perform(self, write: Write) -> None:
        """Do one write of a plan. Raises DataplaneError; then nothing has changed."""
        match write:
            case SetNode(number, address):
                self._set_node(number, address, resolve([address]).get(address))
            case SetSlots(service, owners):
                self._maps.set_slots(service, owners)
            case ClearNode(number):
                self._maps.clear_node(number)
                self._nodes.pop(number, None)

    def counters(self) -> Mapping[str, int]:
        """Packets per verdict name since the maps were made. bpf/verdict.h says what each verdict means."""
        return self._maps.counters()

    @property
    def unreachable(self) -> tuple[int, ...]:
        """Numbers of the nodes whose next hop's MAC address is not known."""
        return tuple(number for number, (_, hop) in sorted(self._nodes.items()) if not hop or not hop.mac)

    def refresh_neighbours(self) -> tuple[NeighbourChange, ...]:
        """Ask the kernel again how nodes are reached, and write what has changed.

        Of very many nodes only some at a time, since everything waits meanwhile: first those that cannot be reached.
        """
        unreachable = self.unreachable[:REFRESH_MAX]
        numbers = [*unreachable, *self._in_turn(REFRESH_MAX - len(unreachable))]
        hops = resolve({self._nodes[number][0] for number in numbers})
        changes = []
        for number in sorted(set(numbers)):
            address, before = self._nodes[number]
            after = _keep_mac(before, hops.get(address))
            if after != before:
                self._set_node(number, address, after)
                changes.append(NeighbourChange(number, address, before, after))
        return tuple(changes)

    def _in_turn(self, most: int) -> list[int]:
        """The next numbers of nodes after those of the last time, round and round."""
        numbers = sorted(self._nodes)
        begin = bisect_right(numbers, self._refreshed)
        found = (numbers[begin:] + numbers[:begin])[:most]
        self._refreshed = found[-1] if found else self._refreshed
        return found

    def _set_node(self, number: int, address: str, hop: NextHop | None) -> None:
        self._maps.set_node(number, address, hop)
        self._nodes[number] = address, hop


def _keep_mac(before: NextHop | None, after: NextHop | None) -> NextHop | None:
    """A MAC the kernel has forgotten stays good while the next hop is the same."""
    forgotten = (
        before and after and after.mac is None and (before.address, before.ifindex) == (after.address, after.ifindex)
    )
    return before if forgotten else after
