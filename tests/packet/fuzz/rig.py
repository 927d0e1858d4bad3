"""The real programs over maps of their own, run on a frame as fast as Python can: a buffer that is used again for every
system call, and counters in memory that this process shares with the kernel.

For that the text of bpf/ is compiled with two changes: the counters of verdicts are one array instead of one per CPU;
and the port that a flow gets by chance follows from the flow, not from the time, so that the same frames get the same.
"""

import ctypes
import os
import re
import struct
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from gale.dataplane import hop as kernel
from gale.dataplane.abi import BPF_DIRECTORY, Action, verdicts
from gale.dataplane.explain import explainers
from gale.dataplane.maps import Maps
from gale.dataplane.program import Secrets, load
from gale.dataplane.settings import DataplaneSettings
from gale.dataplane.syscall import PROG_TEST_RUN
from tests.packet.fuzz.cast import LINK, NODES, Change
from tests.packet.moving import forget_moves, pass_time
from tests.packet.oracle import Hop, World
from tests.packet.oracle.model import Result

LONGEST = 3500
"""Bytes of a frame that the kernel makes a test run of XDP with; it keeps the rest of a page for itself."""
SHORTEST_XDP, SHORTEST_TC = 14, 34
"""TC is not given less than an IPv4 header, in a test run; of IPv6 not less than that header."""

XDP_ACTIONS = {Action.DROP: 1, Action.PASS: 2, Action.REDIRECT: 4, Action.REPLY: 4}
TC_ACTIONS = {Action.DROP: 2, Action.PASS: 0xFFFFFFFF, Action.REDIRECT: 7}
ACTIONS = {"public": XDP_ACTIONS, "private": TC_ACTIONS}

SHARED_COUNTERS = (
    "BPF_PERCPU_ARRAY(verdicts, __u64, VERDICT_COUNT);",
    'BPF_F_TABLE("array", __u32, __u64, verdicts, VERDICT_COUNT, BPF_F_MMAPABLE);',
)
REPEATABLE = ("chance = now ^ flow_hash(", "chance = flow_hash(")
_BPF = 321 if os.uname().machine == "x86_64" else 280
_ROOM = 4096
_INCLUDE = re.compile(r'^#include "(\w+\.h)"$', re.MULTILINE)


class NotFound(Exception):
    """A text to replace that is not there."""


def text_with(text: bytes, changes: Sequence[tuple[str, str]]) -> bytes:
    """The packet path as one text, its headers in their places, with each change made once."""
    seen: set[str] = set()

    def inline(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return ""
        seen.add(name)
        body = (BPF_DIRECTORY / name).read_text().replace("#pragma once\n", "")
        return f'#line 1 "bpf/{name}"\n' + _INCLUDE.sub(inline, body)

    whole = _INCLUDE.sub(inline, text.decode())
    for old, new in changes:
        if old not in whole:
            raise NotFound(old)
        whole = whole.replace(old, new, 1)
    return whole.encode()


class Side:
    """One program, and what it returns by the name of its verdict. `counted`: the counters as they were last seen."""

    def __init__(
        self, program_fd: int, actions: Mapping[Action, int], counters: memoryview, counted: list[int]
    ) -> None:
        self._in, self._out = (ctypes.create_string_buffer(_ROOM) for _ in range(2))
        self._attribute = ctypes.create_string_buffer(128)
        where = ctypes.addressof(self._in), ctypes.addressof(self._out)
        struct.pack_into("=IIIIQQII", self._attribute, 0, program_fd, 0, 0, 0, *where, 1, 0)
        self._words = memoryview(self._attribute).cast("B").cast("I")
        self._from, self._to = memoryview(self._in).cast("B"), memoryview(self._out).cast("B")
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long]
        self._counters = counters
        self._counted = counted
        self._by_action: dict[int, list[tuple[int, str]]] = {}
        for index, verdict in enumerate(verdicts()):
            if verdict.action in actions:
                self._by_action.setdefault(actions[verdict.action], []).append((index, verdict.name))

    def run(self, frame: bytes) -> Result:
        """The verdict is the counter that moved, of those whose action the program returned; "" if none did."""
        size = len(frame)
        words = self._words
        self._from[:size] = frame
        words[2] = size
        words[3] = _ROOM
        if self._call(_BPF, PROG_TEST_RUN, self._attribute, 128) < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{os.strerror(code)} (a frame of {size} bytes)")
        counters, counted = self._counters, self._counted
        for index, name in self._by_action.get(words[1], ()):
            if counters[index] != counted[index]:
                counted[index] = counters[index]
                return name, bytes(self._to[: words[3]])
        return f"returned {words[1]} without a verdict", bytes(self._to[: words[3]])

    def leave(self, frame: bytes) -> bytes:
        """The frame as the program leaves it, of a program that counts nothing."""
        self.run(frame)
        return bytes(self._to[: self._words[3]])


class Rig:
    """Programs and maps for `settings`, compiled from `text`. Runs must stay on one CPU. `explain`: may be asked."""

    def __init__(self, settings: DataplaneSettings, text: bytes, explain: bool = True) -> None:
        shared = text_with(text, [SHARED_COUNTERS, REPEATABLE])
        self.program = load(settings, shared, secrets=Secrets(0x5EED, 0xFEED))
        self.maps = Maps(self.program, settings)
        self.maps.set_link(LINK, 1)
        self._settings = settings
        self._numbers: set[int] = set()
        self._traffic: dict[str, tuple[int, ...]] = {}
        self._tables = [self.program.maps[name].mmap() for name in ("flows", "returns")]
        counters = memoryview(self.program.maps["verdicts"].mmap()).cast("Q")[: len(verdicts())]
        counted = list(counters)
        fds = self.program.fds
        self.sides = {"public": Side(fds["gale_public"], XDP_ACTIONS, counters, counted)}
        if "gale_private" in fds:
            self.sides["private"] = Side(fds["gale_private"], TC_ACTIONS, counters, counted)
        self._asked = explainers(self.program, shared) if explain else None
        self._explainers = self._asked and {
            side: Side(self._asked.fds[f"gale_explain_{side}"], ACTIONS[side], counters, counted) for side in self.sides
        }

    def set_world(self, world: World) -> None:
        for number in self._numbers | world.nodes.keys():
            self.change(world, ("node", number))
        for service in world.slots:
            self.change(world, ("slots", service))

    def change(self, world: World, change: Change) -> None:
        what, which = change
        if what == "slots":
            owners = world.slots[str(which)]
            self.maps.set_slots(str(which), struct.pack(f"={len(owners)}H", *owners))
            return
        if what == "seconds":
            pass_time(self.maps, self.program.maps["strays"], int(which))
            return
        number = int(which)
        if node := world.nodes.get(number):
            addresses = [address_text(address) for address in (node.address, node.address6)]
            self.maps.set_node(number, addresses[0], addresses[1], kernel_hop(node.hop4), kernel_hop(node.hop6))
            self._numbers.add(number)
        else:
            self.maps.clear_node(number)
            self._numbers.discard(number)

    def explain(self, side: str, frame: bytes) -> Result | None:
        """What would become of it, as the programs say that answer questions; None without them."""
        if not self._asked or not self._explainers:
            return None
        left = self._explainers[side].leave(frame)
        return verdicts()[self._asked.maps["explanation"][0].verdict].name, left

    def traffic(self) -> dict[str, tuple[int, ...]]:
        """What has been counted since the last time, of every service and every node that has counted anything."""
        now = {name: self._totals("service_traffic", index) for index, name in enumerate(self._settings.services)}
        now |= {f"node {number}": self._totals("node_traffic", number) for number in range(1, NODES + 1)}
        before, self._traffic = self._traffic, now
        grown = {
            name: tuple(after - early for after, early in zip(counts, before.get(name, (0,) * 5), strict=True))
            for name, counts in now.items()
        }
        return {name: counts for name, counts in grown.items() if any(counts)}

    def _totals(self, name: str, number: int) -> tuple[int, ...]:
        words = struct.iter_unpack("=5Q", self.program.maps[name].lookup(number) or b"")
        return tuple(map(sum, zip(*words, strict=True)))

    def forget(self) -> None:
        """No flows, no fragments, and no slot has moved."""
        for table in self._tables:
            table[:] = bytes(len(table))
        for name in ("fragments", "strays"):
            self.program.maps[name].clear()
        forget_moves(self.maps)


def kernel_hop(hop: Hop) -> kernel.Hop:
    if not hop.macs:
        return kernel.NO_HOP
    return kernel.Hop(hop.macs, LINK, hop.vlan, hop.mtu, hop.on_link)


def address_text(address: bytes) -> str:
    return str(ip_address(address)) if address else ""
