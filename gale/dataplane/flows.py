"""Flows, for operators: some of those of l4, how many there are, and an end to them. Of l2 and l3 those are counted
that are known, because their slot has moved (strays.py).

One question at a time goes through the table (flowtable.py), and after each slice of time the loop has its turn.

Killed is a flow by a program of its own, under the lock of its entry (bpf/kill.c). Then nobody forwards its packets:
they meet the kernel's reset, at the load balancer's public address and at its private one. So that an end which only
waits notices too, both ends of an established connection get an acknowledgement of what was long ago: the client as
when its node is gone (farewell.py), the node from the address that it knows the client by.
"""

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

from gale.dataplane import jiffies
from gale.dataplane.address import packed, plain, unpacked, version
from gale.dataplane.compiler import source
from gale.dataplane.farewell import SLICE_S, Destination, Farewell
from gale.dataplane.flowtable import Births, Part, chosen, parts, quiet_for_s, service_of, wanted
from gale.dataplane.frames import ACK, PROTOCOL_TCP, frame, segment
from gale.dataplane.listeners import Directory, Known
from gale.dataplane.program import Program, load_source
from gale.dataplane.settings import DataplaneSettings
from gale.dataplane.strays import Row, Strays
from gale.dataplane.testrun import run_program
from gale.dataplane.words import birth_of
from gale.errors import DataplaneError
from gale.ports import Flow, FlowChoice, FlowCounts

PAUSE_S = 0.003
BUSY_S, BUSY_TRIES = 0.01, 100

_CHOICE = struct.Struct("=QII")
"""struct choice of bpf/kill.c."""
_CHOICES = 16  # in a frame, at most
_FRAME_HEAD = bytes(14)
_TYPE = 2  # bytes before the packet, of a frame without MAC addresses
_LONG_AGO = 1 << 30  # bytes
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_NO_L4 = "no service is of mode l4: flows of l2 and l3 are not listed, for nodes answer clients directly"


class Flows:
    """gale.ports.FlowTable.

    directory  of the listeners: what a flow's client connected to
    births     of the nodes
    addresses  of the node that has this number
    strays     what is known of l2 and l3, which is counted, too
    """

    def __init__(
        self,
        program: Program,
        settings: DataplaneSettings,
        directory: Callable[[], Directory],
        births: Births,
        addresses: Callable[[int], tuple[str, str]],
        farewell: Farewell | None,
        strays: Strays,
    ) -> None:
        self._strays = strays
        self._program, self._settings, self._services = program, settings, settings.services
        self._directory, self._births, self._addresses, self._farewell = directory, births, addresses, farewell
        self._turn = asyncio.Lock()
        self._killer: Program | None = None
        self.killed = 0

    async def some(self, choice: FlowChoice, most: int) -> tuple[list[Flow], bool]:
        flows, now, node = list[Flow](), jiffies.now(), self._nodes()
        async with self._turn:
            entries = self._directory().entries
            async for part, found in self._walk(choice, now):
                for place, state in found:
                    if len(flows) == most:
                        return flows, True
                    entry = part.entry(place)
                    if part.stands(place):
                        flows.append(_flow(entry, state, entries[entry.listener], self._services, node, now))
        return flows, False

    async def count(self, choice: FlowChoice) -> FlowCounts:
        counted = Counter[Row]()
        async with self._turn:
            end = time.monotonic() + SLICE_S
            for some in self._strays.count(choice, jiffies.now()):
                counted += some
                end = await _turns(end)
            if self._farewell is not None:
                counted += await self._count_l4(choice)
        return counted

    def settled(self, node: int) -> bool:
        return self._strays.settled(node)

    async def _count_l4(self, choice: FlowChoice) -> Counter[Row]:
        seen: Counter[tuple[int, int, int, str]] = Counter()
        entries = self._directory().entries
        async for part, found in self._walk(choice, jiffies.now()):
            if found:
                listeners, numbers, words = part.shorts("listener"), part.shorts("number"), part.words
                seen.update((listeners[at], numbers[at], birth_of(words[at]), state) for at, state in found)
        node, counted = self._nodes(), Counter[Row]()
        for (listener, number, birth, state), many in seen.items():
            known = entries[listener]
            counted[service_of(known, self._services), known.protocol, node(number, birth), state] += many
        return counted

    async def kill(self, choice: FlowChoice) -> int:
        killed = 0
        async with self._turn:
            killer = await self._loaded()
            end = time.monotonic() + SLICE_S
            async for part, found in self._walk(choice, jiffies.now()):
                for begin in range(0, len(found), _CHOICES):
                    ended = _kill(killer, part, [place for place, _ in found[begin : begin + _CHOICES]])
                    killed += len(ended)
                    self.killed += len(ended)
                    states = dict(found[begin : begin + _CHOICES])
                    for place in ended:
                        if states[place] == "established":
                            await self._take_leave(part.entry(place))
                    end = await _turns(end)
        return killed

    async def _loaded(self) -> Program:
        if self._killer is None:
            self._killer = await asyncio.to_thread(_killer, self._program)
        return self._killer

    async def _walk(self, choice: FlowChoice, now: int) -> AsyncIterator[tuple[Part, list[tuple[int, str]]]]:
        if self._farewell is None:
            raise DataplaneError(_NO_L4)
        meant = wanted(choice, self._directory().entries, self._services, self._births)
        end = time.monotonic() + SLICE_S
        for part in parts(self._program.maps["returns"]):
            yield part, chosen(part, meant, now)
            end = await _turns(end)

    def _nodes(self) -> Callable[[int, int], int | None]:
        """(number, birth) -> the number; None when that node is gone."""
        births = cache(self._births)
        return lambda number, birth: number if births(number) == birth else None

    # both ends of a connection

    async def _take_leave(self, entry: Any) -> None:
        """Raises DataplaneError when nothing can be sent."""
        farewell = self._farewell
        if entry.protocol != PROTOCOL_TCP or farewell is None:
            return
        known = self._directory().entries[entry.listener]
        to = Destination(packed(known.address), known.port)
        await _sent(self._settings.public_interface, lambda: farewell.take_leave(bytes(entry), to))
        if self._births(entry.number) == birth_of(entry.word):
            await _sent(self._settings.private_interface, lambda: self._remind_node(entry))

    def _remind_node(self, entry: Any) -> None:
        """From the client that it knows, for which this machine's kernel answers from now on."""
        six = version(unpacked(bytes(entry.client))) == 6
        own = self._settings.source_address6 if six else self._settings.source_address
        node = self._addresses(entry.number)[six]
        if not own or not node:
            return
        ports = socket.ntohs(entry.source_port), socket.ntohs(entry.node_port)
        number = (socket.ntohl(entry.isn) - _LONG_AGO) & 0xFFFFFFFF
        packet = frame(b"", plain(own), plain(node), PROTOCOL_TCP, segment(ports, number, number, ACK))[_TYPE:]
        with socket.socket(_FAMILIES[version(node)], socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW) as out:
            out.sendto(packet, (node, 0))


async def _turns(end: float) -> float:
    """After a slice of time that ends then, everything else has its turn. Gives when the present slice ends."""
    if time.monotonic() < end:
        return end
    await asyncio.sleep(PAUSE_S)
    return time.monotonic() + SLICE_S


async def _sent(interface: str, send: Callable[[], None]) -> None:
    """Waits a while for a busy interface. Raises DataplaneError."""
    for _ in range(BUSY_TRIES):
        try:
            return send()
        except BlockingIOError:
            await asyncio.sleep(BUSY_S)
        except OSError as error:
            raise DataplaneError(f"{interface}: the ends of a flow cannot be told: {error.strerror}") from error
    raise DataplaneError(f"{interface}: the ends of a flow cannot be told: it is busy")


def _flow(
    entry: Any, state: str, known: Known, services: tuple[str, ...], node: Callable[[int, int], int | None], now: int
) -> Flow:
    return Flow(
        client=unpacked(bytes(entry.client)),
        client_port=socket.ntohs(entry.client_port),
        protocol=known.protocol,
        service=service_of(known, services),
        address=known.address,
        port=known.port,
        node=node(entry.number, birth_of(entry.word)),
        source_port=socket.ntohs(entry.source_port),
        state=state,
        quiet_s=quiet_for_s(entry.word, now),
    )


def _killer(program: Program) -> Program:
    """Over the live tables. Takes a second when it is compiled."""
    text = source("head.c", "flows.c", "kill.c")
    cflags = [*program.cflags, f"-DCHOICES={_CHOICES}"]
    return load_source(text, cflags, {"gale_kill": "xdp"}, program.maps, program.late)


def _kill(killer: Program, part: Part, places: list[int]) -> list[int]:
    """Those of these places of a part whose flow was killed."""
    asked = b"".join(_CHOICE.pack(part.words[place], part.first + place, 0) for place in places)
    try:
        answer = run_program(killer.fds["gale_kill"], _FRAME_HEAD + asked).packet[len(_FRAME_HEAD) :]
    except OSError as error:
        raise DataplaneError(f"gale_kill cannot be run: {error.strerror}") from error
    return [place for place, (*_, killed) in zip(places, _CHOICE.iter_unpack(answer), strict=True) if killed]
