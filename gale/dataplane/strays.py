"""Reads the map of strays: connections of l2 and l3 in slots that have moved (bpf/moved.h), as far as they are known.

It is a hash table of the kernel, read in batches while packets write to it. Operators want to know how many connections
a node still has (`Strays`); and slots in which no flow needs to be looked for any more cost packets nothing once that
is found out (`Sweeper`).
"""

import socket
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from typing import Any

from gale.core.view import NO_NODE
from gale.dataplane import jiffies
from gale.dataplane.address import packed, unpacked
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.flowtable import Births, quiet_for_s, service_of
from gale.dataplane.maps import Maps
from gale.dataplane.moves import age
from gale.ports import FlowChoice

BATCH = 2_048
"""Entries that are read together: a few milliseconds."""

AT_WORK_S, ENDED_S = 60, 0.5
"""Of a connection that is open a packet was seen so lately; once its client has sent a FIN or RST, later than that."""

NEEDED_S, NEEDED_ENDED_S = 15 * 60, 60
"""One that is quiet for longer is not looked for any more."""

SETTLED_S = 5
"""After a node has lost slots: of whoever is at work something has been seen by then."""

SWEEP_S = 60.0

FORGOTTEN_S = 24 * 3600
"""An entry that is quiet for longer is deleted, long before its stamp could be taken for one of the time to come."""

FLAGGED_MOST = 1 << 30
"""Jiffies. A slot that is flagged for longer counts as flagged later, when nothing was entered that is still there:
between two stamps that are compared may be less than 1 << 31."""

_PROTOCOL = "tcp"

Row = tuple[str, str, int | None, str]
"""Service, protocol, number of the node, state: as flows are counted."""


class Strays:
    """`services`: in the order that numbers them; `births`: of the nodes."""

    def __init__(self, table: BpfMap, maps: Maps, services: tuple[str, ...], births: Births) -> None:
        self._table, self._maps, self._births = table, maps, births
        self.attached_at: int | None = None
        """Jiffies. The programs before knew nothing of slots that had moved since."""
        self._services = {
            (packed(known.address), known.port): service_of(known, services)
            for known in maps.directory.entries.values()
            if known.mode != "l4" and known.protocol == _PROTOCOL
        }

    def batches(self) -> Iterator[list[tuple[str, Any, Any]]]:
        """Service, key and value of the entries, some at a time."""
        for keys, values in self._table.batches(BATCH) if self._services else ():
            many = len(keys) // self._table.key_size
            pairs = zip(
                (self._table.Key * many).from_buffer_copy(keys),
                (self._table.Leaf * many).from_buffer_copy(values),
                strict=True,
            )
            places = ((bytes(key.address), socket.ntohs(key.port), key, stray) for key, stray in pairs)
            yield [
                (self._services[address, port], key, stray)
                for address, port, key, stray in places
                if (address, port) in self._services
            ]

    def count(self, choice: FlowChoice, now: int) -> Iterator[Counter[Row]]:
        """Those that are meant, batch by batch. `now`: jiffies."""
        births = cache(self._births)
        for batch in self.batches():
            rows = [
                (service, _PROTOCOL, _node(stray, births), _state(stray, now))
                for service, key, stray in batch
                if _is_from(key, choice)
            ]
            yield Counter(
                row
                for row in rows
                if choice.node in (None, row[2]) and choice.service in ("", row[0]) and choice.state in ("", row[3])
            )

    def settled(self, node: int) -> bool:
        """Whether the connections that are at work, in the slots that the node has lost, have had time to show."""
        now, enough = jiffies.now(), min(jiffies.ticks(SETTLED_S), self._maps.learning)
        lost = (table.youngest(node, now) for table in self._maps.tables.values())
        ages = [passed for passed in lost if passed is not None]
        if ages and self.attached_at is not None:
            ages.append(age(self.attached_at, now))
        return all(passed >= enough for passed in ages)

    def forget(self, key: Any) -> None:
        self._table.delete(key)


class Sweeper:
    """Takes flags away, a batch at a time, and deletes entries that are of no use. Of the slots only those that have
    learnt are looked at."""

    def __init__(self, strays: Strays, maps: Maps) -> None:
        self._strays, self._maps = strays, maps
        self._under_way: Iterator[None] | None = None
        self._next_s = 0.0
        self._may_be_left = True  # entries, also an earlier start's

    def work(self) -> bool:
        """Does a part, when it is time to. True if there is more to be done now."""
        if self._under_way is None:
            if time.monotonic() < self._next_s or not (self._may_be_left or self._moved()):
                return False
            self._under_way = self.sweep()
        try:
            next(self._under_way)
            return True
        except StopIteration:
            self._under_way, self._next_s = None, time.monotonic() + SWEEP_S
            return False

    def sweep(self) -> Iterator[None]:
        """All of it, in parts."""
        self._may_be_left = self._moved()
        now, needed = jiffies.now(), defaultdict[str, set[int]](set)
        learnt = {service: dict(table.learnt(now, self._maps.learning)) for service, table in self._maps.tables.items()}
        for batch in self._strays.batches():
            for service, key, stray in batch:
                if service not in learnt:
                    continue  # its slots are not known yet
                quiet_s = quiet_for_s(stray.seen, now)
                if stray.slot not in self._maps.tables[service].moved or quiet_s >= FORGOTTEN_S:
                    self._strays.forget(key)
                elif stray.slot in learnt[service] and self._needs_slot(service, stray, quiet_s):
                    needed[service].add(stray.slot)
            yield
        for service, slots in learnt.items():
            still = dict(self._maps.tables[service].learnt(now, self._maps.learning))
            done = [slot for slot, began in slots.items() if slot not in needed[service] and still.get(slot) == began]
            if done:
                self._maps.settle(service, done)
            yield
            table = self._maps.tables[service]
            if old := [slot for slot in table.moved if table.flagged_for(slot, now) > FLAGGED_MOST]:
                self._maps.renew(service, old, now - jiffies.ticks(2 * FORGOTTEN_S))

    def _moved(self) -> bool:
        return any(self._maps.moved_slots().values())

    def _needs_slot(self, service: str, stray: Any, quiet_s: float) -> bool:
        elsewhere = stray.node not in (NO_NODE, self._maps.tables[service].owner(stray.slot))
        return elsewhere and quiet_s < (NEEDED_ENDED_S if stray.ended else NEEDED_S)


def _node(stray: Any, births: Births) -> int | None:
    """None when it is gone. Of a flow of which there was but a SYN: the node that got it."""
    number, birth = (stray.node, stray.birth) if stray.node != NO_NODE else (stray.next, stray.next_birth)
    return number if births(number) == birth else None


def _state(stray: Any, now: int) -> str:
    """As of other flows."""
    if quiet_for_s(stray.seen, now) >= (ENDED_S if stray.ended else AT_WORK_S):
        return "ended"
    return "established" if stray.node != NO_NODE else "opening"


def _is_from(key: Any, choice: FlowChoice) -> bool:
    if choice.port and socket.ntohs(key.client_port) != choice.port:
        return False
    return choice.clients is None or ip_address(unpacked(bytes(key.client))) in choice.clients
