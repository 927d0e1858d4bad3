"""How every node is reached, kept current.

What the kernel says by itself (monitor.py) tells which addresses may be reached another way now. These are asked for
again (neighbours.py), and a node is written when the answer differs. So a change is followed in milliseconds, whatever
the number of nodes. Because everything waits meanwhile, the work is done in slices, and many changes at once take more
than one.

A slow sweep runs besides, for what the kernel does not say: that a neighbour needs to be verified, that a driver begins
to take frames. Each call of `sweep` takes some nodes, round and round, half of them from those that cannot be reached.

A MAC address the kernel has forgotten stays good while the next hop is the same: the kernel forgets what it does not
use itself.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from gale.dataplane.address import plain
from gale.dataplane.links import Link
from gale.dataplane.monitor import (
    Event,
    EverythingChanged,
    LinkChanged,
    Monitor,
    NeighbourLearned,
    RouteChanged,
)
from gale.dataplane.neighbours import Neighbour, Resolver, Way

SWEEP_MAX = 500  # addresses
SLICE_S = 0.005
_CHUNK = 32  # addresses that are asked for together
_PREFIXES_MAX = 8  # lengths of prefixes that are compared; with more, every address is asked for


@dataclass(frozen=True, slots=True)
class WayChange:
    """A node's address is reached another way than before."""

    number: int
    address: str
    before: Way
    after: Way

    def __str__(self) -> str:
        return f"node {self.number}, {self.address}: {self.after} (before: {self.before})"


Write = Callable[[int, str, str, Way, Way], None]
"""Number, IPv4 address, IPv6 address or "", and the ways to them. Raises DataplaneError; then nothing has changed."""

_NO_ADDRESS = Way(trouble="it has no such address")


class Reach:
    """`write` puts a node into the maps."""

    def __init__(self, write: Write, monitor: Monitor | None = None) -> None:
        self._write = write
        self._resolver = Resolver()
        self.monitor = monitor or Monitor()
        self._nodes: dict[int, tuple[str, str]] = {}
        self._numbers: dict[str, set[int]] = {}
        self._ways: dict[str, Way] = {}
        self._values: dict[int, dict[str, int]] = {4: {}, 16: {}}  # addresses as numbers, by their length
        self._neighbours: dict[Neighbour, set[str]] = {}
        self._doubtful: dict[str, None] = {}
        self._prefixes: dict[tuple[int, int], set[int]] = {}  # bytes of an address, length
        self._turns = {"all": "", "closed": ""}
        self._changes: list[WayChange] = []

    def close(self) -> None:
        self._resolver.close()
        self.monitor.close()

    @property
    def neighbours_full(self) -> bool:
        """The kernel's table of neighbours has no room for all of them."""
        return self._resolver.full

    def put(self, number: int, address: str, address6: str) -> None:
        """A node appears or moves. Raises DataplaneError; then nothing has changed."""
        addresses = [each for each in (address, address6) if each]
        ways = {each: self._ways[each] for each in addresses if each in self._ways}
        ways |= self._resolver.resolve([each for each in addresses if each not in ways])
        self._write(number, address, address6, ways.get(address, _NO_ADDRESS), ways.get(address6, _NO_ADDRESS))
        self.clear(number)
        self._nodes[number] = address, address6
        for each in addresses:
            self._numbers.setdefault(each, set()).add(number)
            self._note(each, ways[each])

    def clear(self, number: int) -> None:
        """A node is gone."""
        for address in self._nodes.pop(number, ()):
            holders = self._numbers.get(address, set())
            holders.discard(number)
            if address and not holders:
                self._numbers.pop(address, None)
                self._forget(address)

    def link(self, index: int) -> Link | None:
        """An interface; None if it is gone."""
        return self._resolver.link(index)

    def addresses(self, number: int) -> tuple[str, ...]:
        """Of a node: those it has."""
        return tuple(address for address in self._nodes.get(number, ()) if address)

    def ways(self, number: int) -> tuple[Way, ...]:
        """To a node's addresses."""
        return tuple(self._ways[address] for address in self.addresses(number))

    @property
    def closed(self) -> Mapping[int, str]:
        """The nodes that cannot be reached by some address of theirs, and why."""
        return {
            number: "; ".join(dict.fromkeys(str(way) for way in self.ways(number) if not way.open))
            for number in sorted(self._nodes)
            if not all(way.open for way in self.ways(number))
        }

    def set_native(self, native: bool) -> None:
        """XDP runs in the driver, so that interfaces must take its frames; or it does not."""
        self._resolver.native = native
        self._resolver.forget_links()
        self._doubt(self._ways)

    def listen(self) -> None:
        """Take what the kernel has said since. What follows of it is done by `work`."""
        for event in self.monitor.read():
            self._take(event)

    def sweep(self) -> None:
        """The next addresses in turn are doubtful."""
        self._resolver.forget_links()
        closed = sorted(address for address, way in self._ways.items() if not way.open)
        self._doubt(self._in_turn("closed", closed, SWEEP_MAX // 2))
        self._doubt(self._in_turn("all", sorted(self._ways), SWEEP_MAX // 2))

    def work(self, slice_s: float | None = SLICE_S) -> bool:
        """Ask for doubtful addresses again, and write what has changed. True if some are left after that time.
        Raises DataplaneError; what is left is tried again by the next call."""
        self._compare_prefixes()
        end = None if slice_s is None else time.monotonic() + slice_s
        while self._doubtful and (end is None or time.monotonic() < end):
            some = [address for address, _ in zip(self._doubtful, range(_CHUNK), strict=False)]
            outdated = set[Neighbour]()
            for address, way in self._resolver.resolve(some).items():
                outdated |= self._renew(address, way)
                self._doubtful.pop(address, None)
            self._resolver.look_again(outdated)
        return bool(self._doubtful)

    def changes(self) -> tuple[WayChange, ...]:
        """Since this was last asked."""
        changes, self._changes = tuple(self._changes), []
        return changes

    def _take(self, event: Event) -> None:
        match event:
            case NeighbourLearned(neighbour, mac):
                self._doubt(a for a in self._neighbours.get(neighbour, ()) if self._ways[a].mac != mac)
            case LinkChanged(index):
                self._resolver.forget_links()
                self._doubt(a for a, way in self._ways.items() if index in (way.out, way.neighbour[0]) or way.trouble)
            case RouteChanged(prefix, bits):
                value = int.from_bytes(prefix) >> (8 * len(prefix) - bits)
                self._prefixes.setdefault((len(prefix), bits), set()).add(value)
            case EverythingChanged():
                self._resolver.forget_links()
                self._doubt(self._ways)

    def _compare_prefixes(self) -> None:
        """Which addresses begin with a prefix whose route has changed."""
        prefixes, self._prefixes = self._prefixes, {}
        if len(prefixes) > _PREFIXES_MAX:
            self._doubt(self._ways)
            return
        for (length, bits), values in prefixes.items():
            shift = 8 * length - bits
            self._doubt([address for address, own in self._values[length].items() if own >> shift in values])

    def _doubt(self, addresses: Iterable[str]) -> None:
        self._doubtful.update(dict.fromkeys(addresses))

    def _renew(self, address: str, way: Way) -> set[Neighbour]:
        """Write the nodes with this address, if the way to it has changed. Gives the neighbours of their other
        addresses that have the MAC address which is no longer this one's: likely they have changed together."""
        before, outdated = self._ways.get(address), set[Neighbour]()
        if before is None:
            return outdated
        after = _keep_mac(before, way)
        if after == before:
            return outdated
        for number in sorted(self._numbers[address]):
            pair = self._nodes[number]
            four, six = (after if each == address else self._ways.get(each, _NO_ADDRESS) for each in pair)
            self._write(number, *pair, four, six)
            self._changes.append(WayChange(number, address, before, after))
            if before.mac and before.mac != after.mac:
                others = (each for each in (four, six) if each is not after and each.out == before.out)
                outdated.update(other.neighbour for other in others if other.mac == before.mac)
        self._note(address, after)
        return outdated

    def _note(self, address: str, way: Way) -> None:
        self._forget(address)
        self._ways[address] = way
        own = plain(address)
        self._values[len(own)][address] = int.from_bytes(own)
        self._neighbours.setdefault(way.neighbour, set()).add(address)

    def _forget(self, address: str) -> None:
        self._values[len(plain(address))].pop(address, None)
        way = self._ways.pop(address, None)
        if way and way.neighbour in self._neighbours:
            users = self._neighbours[way.neighbour]
            users.discard(address)
            if not users:
                del self._neighbours[way.neighbour]

    def _in_turn(self, name: str, addresses: list[str], most: int) -> list[str]:
        """The next ones after those of the last time, round and round."""
        begin = bisect_right(addresses, self._turns[name])
        found = (addresses[begin:] + addresses[:begin])[:most]
        self._turns[name] = found[-1] if found else self._turns[name]
        return found


def _keep_mac(before: Way, after: Way) -> Way:
    """What the kernel has forgotten about the same neighbour."""
    forgotten = before.mac and after.mac is None and before.neighbour == after.neighbour
    return replace(after, mac=before.mac) if forgotten else after
