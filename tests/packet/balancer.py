"""One load balancer's programs and maps, without interfaces: packets go in and out by BPF_PROG_TEST_RUN."""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scapy.packet import Packet

from gale.dataplane.abi import Action, verdicts
from gale.dataplane.maps import Maps
from gale.dataplane.neighbours import NextHop
from gale.dataplane.program import jiffies_per_second, load
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.dataplane.testrun import run_program
from tests.packet.packets import (
    NODE_A,
    NODE_B,
    NODE_C,
    NODE_MACS,
    PRIVATE_MAC,
    SECOND_VIP,
    SOURCE,
    TLS,
    VIP,
    WEB,
    WEB_ON_NODES,
    difference,
)

SLOTS = 64
NUMBERS = {NODE_A: 1, NODE_B: 2, NODE_C: 3}
PRIVATE_IFINDEX = 1

SETTINGS = DataplaneSettings(
    public_interface="lo",
    private_interface="lo",
    source_address=SOURCE,
    source_address6=None,
    listeners=(
        Listener("web", VIP, WEB, "tcp", WEB_ON_NODES),
        Listener("web", SECOND_VIP, WEB, "tcp", WEB_ON_NODES),
        Listener("tls", VIP, TLS, "tcp", TLS),
    ),
    slots=SLOTS,
    flows=1 << 16,
)

XDP_ACTIONS = {Action.DROP: 1, Action.PASS: 2, Action.REDIRECT: 4}
TC_ACTIONS = {Action.DROP: 2, Action.PASS: 0, Action.REDIRECT: 7}
ACTIONS = {verdict.name: verdict.action for verdict in verdicts()}


@dataclass(frozen=True)
class Outcome:
    """The verdict's name, and the frame as the program left it."""

    verdict: str
    packet: bytes

    def must_be(self, verdict: str, packet: Packet) -> None:
        """The whole frame, with lengths and checksums as scapy computes them."""
        assert self.verdict == verdict
        assert not (text := difference(self.packet, bytes(packet))), text


class Balancer:
    def __init__(self) -> None:
        self.program = load(SETTINGS)
        self.maps = Maps(self.program.module, SETTINGS)
        self._empty = {name: self._zeroes(name) for name in ("flow_copies", "answer_copies")}
        self.reset()

    def reset(self) -> None:
        """No flows; NODE_A and NODE_B reachable, NODE_C not; NODE_A owns every slot of both services."""
        self.forget_flows()
        self.expire_copies()
        self.reset_nodes()
        for service in SETTINGS.services:
            self.set_slots(NODE_A, service)

    def reset_nodes(self) -> None:
        for address, number in NUMBERS.items():
            self.set_node(number, address)

    def public(self, packet: Packet | bytes) -> Outcome:
        return self._run(self.program.public_fd, XDP_ACTIONS, bytes(packet))

    def private(self, packet: Packet | bytes) -> Outcome:
        return self._run(self.program.private_fd, TC_ACTIONS, bytes(packet))

    def _run(self, program_fd: int, actions: dict[Action, int], packet: bytes) -> Outcome:
        """Every packet ends in exactly one verdict, and the verdict's action is what the kernel is told."""
        before = self.maps.counters()
        run = run_program(program_fd, packet)
        moved = {name: count - before[name] for name, count in self.maps.counters().items() if count != before[name]}
        assert list(moved.values()) == [1], f"counters moved: {moved}"
        (verdict,) = moved
        assert run.returned == actions[ACTIONS[verdict]]
        return Outcome(verdict, run.packet)

    def set_node(self, number: int, address: str) -> None:
        mac = bytes.fromhex(NODE_MACS[address].replace(":", "")) if address in NODE_MACS else None
        own = bytes.fromhex(PRIVATE_MAC.replace(":", ""))
        self.maps.set_node(number, address, NextHop(address, PRIVATE_IFINDEX, own, mac))

    def set_slots(self, address: str | None, service: str = "web") -> None:
        """One node owns every slot; None: nobody does."""
        number = NUMBERS[address] if address else 0
        self.maps.set_slots(service, struct.pack("=H", number) * SLOTS)

    def table(self, name: str) -> Any:
        return self.program.module[name.encode()]

    def return_paths(self) -> dict[tuple[str, int], Any]:
        """Node and source port -> value, of every flow."""
        return {
            (socket.inet_ntoa(struct.pack("=I", key.node_address)), socket.ntohs(key.source_port)): path
            for key, path in self.table("returns").items()
        }

    def quiet(self, seconds: float) -> None:
        """As if every node had sent nothing for that long. Copies have long expired by then."""
        returns = self.table("returns")
        for key, path in returns.items():
            path.last_seen -= round(seconds * jiffies_per_second())
            returns[key] = path
        self.expire_copies()

    def forget_flows(self) -> None:
        """Copies stay: enough between packets that copies do not serve, such as SYN and FIN."""
        self.forget("flows")
        self.forget("returns")

    def forget(self, name: str) -> None:
        """Every entry of a table of flows."""
        list(self.table(name).items_lookup_and_delete_batch())

    def hold_every_port(self, address: str) -> None:
        """As if living flows held each port towards a node."""
        returns = self.table("returns")
        (key, path), *_ = returns.items()
        ports = range(1, 1 << 16)
        keys, paths = (returns.Key * len(ports))(), (returns.Leaf * len(ports))()
        for index, port in enumerate(ports):
            keys[index] = key
            keys[index].node_address = int.from_bytes(socket.inet_aton(address), sys.byteorder)
            keys[index].source_port = socket.htons(port)
            paths[index] = path
        returns.items_update_batch(keys, paths)

    def age_copies(self, name: str) -> None:
        """As if the copies had been taken a second ago."""
        copies = self.table(name)
        for key, copy in copies.items():
            if copy.key:
                copy.taken -= jiffies_per_second()
                copies[key] = copy

    def expire_copies(self) -> None:
        for name, (keys, leaves) in self._empty.items():
            self.table(name).items_update_batch(keys, leaves)

    def _zeroes(self, name: str) -> tuple[Any, Any]:
        """Every key of an array, and an empty value for each."""
        table = self.table(name)
        size = table.max_entries
        return (table.Key * size)(*range(size)), (table.Leaf * size)()


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Copies belong to a CPU: a test about them must not be moved."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
