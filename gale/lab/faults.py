"""What can go wrong in a lab, done on purpose: wires cut, programs paused, disks full, power gone, clocks wrong.

    faults = Faults(lab)
    faults.cut("lb-0")
    ...
    faults.mend()

Every fault is undone by its opposite, and all that one Faults has done, but disks and clocks, by its `mend`. Disks and
clocks are given to a load balancer that is stopped, and are its own until the lab is removed.
"""

import signal
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from gale.errors import LabError
from gale.lab import disks, netns, network, processes, wires
from gale.lab.cluster import Lab
from gale.lab.topology import Role

STOPPED_WITHIN_S = 5.0


class Faults:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._cut: set[tuple[str, str]] = set()
        self._paused: set[str] = set()
        self._moved: set[str] = set()

    # wires

    def cut(self, name: str, interface: str = "private") -> None:
        """Nothing goes in or out of an interface any more, though its link is up."""
        topology = self._lab.topology
        self._cut.add((name, interface))
        wires.set_port(topology, topology.instance(name), interface, carries=False)

    def heal(self, name: str, interface: str = "private") -> None:
        topology = self._lab.topology
        wires.set_port(topology, topology.instance(name), interface, carries=True)
        self._cut.discard((name, interface))

    def lose(self, source: str, target: str, percent: int = 100) -> None:
        """Frames from one instance to another are lost at the switch, so many in a hundred; the way back is another."""
        for name in (source, target):
            self._lab.topology.instance(name)
        with self._lab.noted() as notes:
            notes.losses[source, target] = percent
            wires.set_losses(self._lab.topology, notes.losses)

    def part(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Nothing goes between two groups, in either direction."""
        with self._lab.noted() as notes:
            others = list(others)
            for one in some:
                for other in others:
                    notes.losses[one, other] = notes.losses[other, one] = 100
            wires.set_losses(self._lab.topology, notes.losses)

    def deliver(self) -> None:
        """Lose nothing any more."""
        with self._lab.noted() as notes:
            if notes.losses:
                notes.losses.clear()
                wires.set_losses(self._lab.topology, {})

    def mend(self) -> None:
        """Heal, move back and resume what was cut, moved and paused by this object, and lose nothing any more."""
        for name, interface in tuple(self._cut):
            self.heal(name, interface)
        for name in tuple(self._moved):
            self.move_address(name, name)
        for name in tuple(self._paused):
            self.resume(name)
        self.deliver()

    def isolate(self, name: str) -> None:
        """Cut all its interfaces: to the others its machine is dead."""
        for link in self._lab.topology.instance(name).links:
            self.cut(name, link.interface)

    def move_address(self, name: str, through: str) -> None:
        """Clients reach the virtual address of a load balancer through another one, as when its machine is replaced."""
        topology = self._lab.topology
        if not topology.layout.virtual:
            raise LabError("the lab has no virtual addresses: gale-lab up --virtual")
        lb, taker = topology.instance(name), topology.instance(through)
        if {lb.role, taker.role} != {Role.LOAD_BALANCER}:
            raise LabError(f"{name} or {through} is no load balancer: only these have addresses that move")
        routes = [topology.way_to(lb, taker, version) for version in topology.layout.versions]
        for place in ("client", *(["gate-near"] if topology.layout.far_mtu else [])):
            netns.inside(topology.instance(place).namespace, partial(network.set_routes, routes))
        self._moved.discard(name)
        if name != through:
            self._moved.add(name)

    # processes

    def pause(self, name: str) -> None:
        """Stop a load balancer's or a node's programs where they are, as a machine does that swaps or is migrated."""
        self._paused.add(name)
        running = self._lab.running(name).values()
        for process in running:
            processes.send(process, signal.SIGSTOP)
        deadline = time.monotonic() + STOPPED_WITHIN_S
        while any(processes.state(process) not in ("T", None) for process in running):
            if time.monotonic() > deadline:
                raise LabError(f"{name} does not stop for SIGSTOP")
            time.sleep(processes.POLL_S)

    def resume(self, name: str) -> None:
        for process in self._lab.running(name).values():
            processes.send(process, signal.SIGCONT)
        self._paused.discard(name)

    # disks and clocks, of a load balancer that is stopped

    def give_small_disk(self, name: str, kilobytes: int) -> None:
        """Its state stands on a disk of that size from now on."""
        disks.put_on_tmpfs(self._state_of_stopped(name), kilobytes)

    def fill_disk(self, name: str) -> Path:
        """Returns the file whose removal makes room again."""
        return disks.fill(self._lab.store.state(name))

    def give_own_disk(self, name: str) -> None:
        """Its state stands on an ext4 of its own from now on, whose power can be cut; once it has one, it keeps it."""
        state = self._state_of_stopped(name)
        if not self._lab.store.disk(name).exists():
            disks.put_on_ext4(state, self._lab.store.disk(name))

    def cut_power(self, *names: str) -> None:
        """What has a disk of its own loses power: nothing more is written, and the programs are gone."""
        for name in names:
            disks.cut_power(self._lab.store.state(name))
        for name in names:
            self._lab.kill(name)
        for name in names:
            disks.restore_power(self._lab.store.state(name), self._lab.store.disk(name))

    def give_clock(self, name: str) -> None:
        """From its next start on its wall clock is what `shift_clock` says; its monotonic one stays right."""
        self._state_of_stopped(name)
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            raise LabError("libfaketime is missing: apt-get install libfaketime")
        self.shift_clock(name, 0)
        with self._lab.noted() as notes:
            notes.environments[name] = {
                "LD_PRELOAD": str(found[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock(name)),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }

    def shift_clock(self, name: str, seconds: float) -> None:
        """Its wall clock jumps to so many seconds beside the machine's."""
        new = self._clock(name).with_suffix(".new")
        new.write_text(f"{seconds:+g}\n")
        new.replace(self._clock(name))

    def take_clock(self, name: str) -> None:
        """From its next start on it has the machine's clock again."""
        with self._lab.noted() as notes:
            notes.environments.pop(name, None)

    def _clock(self, name: str) -> Path:
        return self._lab.store.config(name).with_suffix(".clock")

    def _state_of_stopped(self, name: str) -> Path:
        if self._lab.running(name):
            raise LabError(f"{name} runs: stop it first")
        return self._lab.store.state(name)
