"""The lab: a cluster of namespaces with real gale programs in them, built, changed and removed.

    lab = Lab("gale-e2e")
    lab.up(LabOptions(nodes=2))
    lab.wait_routing(within_s=20)
    with lab.traffic(rate=100) as traffic: ...
    lab.kill("node-0")
    lab.down()

Everything it knows is on disk (store.py), so any process can go on with a lab that another one built.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gale.config import load_lb, load_node
from gale.errors import LabError
from gale.lab import certificates, netns, network, pins, processes, view
from gale.lab.feed import Flows, Orders, Traffic, Watch
from gale.lab.load import CONNECTIONS, Load
from gale.lab.options import LabOptions, lb_toml, node_toml
from gale.lab.processes import Process
from gale.lab.programs import PROGRAMMED, programs
from gale.lab.store import Notes, Store
from gale.lab.topology import (
    API_PORT,
    Instance,
    Role,
    Topology,
    api_server,
    check_prefix,
    is_lab_namespace,
)
from gale.lab.traffic import Plan
from gale.leaving import NO_NEW_FLOWS

STOP_WITHIN_S = 10.0
GOODBYE_GRACE_S = 0.3  # from the node's goodbye until the load balancers have taken it out
POLL_S = 0.05
SWEEPS_MAX = 10


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    name: str
    role: Role
    namespace: str
    running: bool
    public: str | None
    private: str | None


class Lab:
    def __init__(self, prefix: str = "gale") -> None:
        check_prefix(prefix)
        self.prefix = prefix
        self.store = Store(prefix)

    # What is there

    @property
    def options(self) -> LabOptions:
        """Raises LabError when there is no lab."""
        return self._notes().options

    @property
    def topology(self) -> Topology:
        return self.options.topology(self.prefix)

    @property
    def servers(self) -> tuple[str, ...]:
        """Where gale-ctl asks: the load balancers that were started at some time."""
        notes = self._notes()
        lbs = notes.options.topology(self.prefix).lbs
        return tuple(api_server(lb) for lb in lbs if lb.name in notes.processes)

    def leftovers(self) -> bool:
        """Whether anything of a lab is there, whole or not."""
        return self.store.exists() or bool(self._namespaces())

    def status(self) -> list[InstanceStatus]:
        notes = self._notes()
        return [
            InstanceStatus(i.name, i.role, i.namespace, self._runs(notes, i), i.public, i.private)
            for i in notes.options.topology(self.prefix).instances
        ]

    def log(self, name: str) -> str:
        """What an instance's programs have written so far."""
        self.topology.instance(name)
        logs = [self.store.log(stem) for stem in (f"{name}-server", name)]
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def check_running(self, *names: str) -> None:
        """Raise LabError with the last words of an instance whose programs have ended; of all that were started."""
        notes = self._notes()
        for instance in notes.options.topology(self.prefix).instances:
            if instance.name in (names or notes.processes) and not self._runs(notes, instance):
                words = self.log(instance.name).strip().splitlines()
                raise LabError(f"{instance.name} has ended: {words[-1] if words else 'it wrote nothing'}")

    # Building and removing

    def up(self, options: LabOptions | None = None) -> None:
        """Build the network and start every program; they are not waited for. What fails is removed again."""
        options = options or LabOptions()
        topology = options.topology(self.prefix)
        with self.store.locked():
            if self.leftovers():
                raise LabError("a lab is there already: gale-lab down")
            notes = Notes(options)
            try:
                self.store.create(notes)
                if options.tls:
                    certificates.issue_all(self.store.tls, topology)
                for lb in topology.lbs:
                    self.store.state(lb.name).mkdir()
                for instance in (*topology.lbs, *topology.node_instances):
                    self._configure(topology, options, instance)
                network.build(topology)
                waiting = topology.lbs[options.members :] if options.members else ()
                for instance in topology.instances:
                    if instance not in waiting:
                        self._start(notes, instance)
            except BaseException:
                self._remove()
                raise

    def wait_routing(self, within_s: float, check: Callable[[], None] = lambda: None) -> None:
        """Wait until each node routes on every load balancer that was started. `check`, called often, may raise."""
        topology, servers = self.topology, self.servers
        deadline = time.monotonic() + within_s
        with self.watch() as watch:
            while True:
                check()
                nodes = [node.name for node in topology.node_instances]
                missing = view.missing_for_routing(watch.latest, servers, nodes)
                if missing is None:
                    return
                self.check_running()
                if time.monotonic() > deadline:
                    raise LabError(f"not every node routes after {within_s:.0f} s: {missing}")
                time.sleep(POLL_S)

    def down(self) -> bool:
        """Remove everything there is, whoever built it and however far. Returns whether there was anything."""
        with self.store.locked():
            found = self.leftovers()
            self._remove()
            return found

    # One instance

    def configure(self, name: str, members: Sequence[str] = (), **changed: Any) -> None:
        """Write an instance's configuration anew, as it is read at its next start.

        It is what the lab was asked for, but for the fields of LabOptions that are given here, and for the configured
        list when `members` names the load balancers in it.
        """
        notes = self._notes()
        topology = notes.options.topology(self.prefix)
        listed = [topology.instance(member) for member in members]
        self._configure(topology, replace(notes.options, **changed), self._program_instance(notes, name), listed)

    def started(self, name: str) -> bool:
        """Whether an instance's programs were ever started: that of a load balancer that waits were not."""
        return name in self._notes().processes

    def running(self, name: str) -> dict[str, Process]:
        """What runs of a load balancer ("lb") or a node ("agent", "server", and more where there is iperf3)."""
        notes = self._notes()
        return self._running(notes, self._program_instance(notes, name))

    def start(self, name: str) -> None:
        """Start what does not run of a load balancer or a node."""
        with self.store.locked():
            notes = self._notes()
            self._start(notes, self._program_instance(notes, name))

    def stop(self, name: str) -> None:
        """End a load balancer's or a node's programs in good order: a node's server when it gets no new flows, and its
        agent when those that it had have ended."""
        with self.store.locked():
            notes = self._notes()
            instance = self._program_instance(notes, name)
            running = self._running(notes, instance)
            said, end_s = self.log(name).count(NO_NEW_FLOWS), time.monotonic() + STOP_WITHIN_S
            if agent := running.pop("agent", None):
                processes.send(agent, signal.SIGTERM)
                while self.log(name).count(NO_NEW_FLOWS) == said and processes.alive(agent):
                    if time.monotonic() > end_s:
                        break
                    time.sleep(POLL_S)
                time.sleep(GOODBYE_GRACE_S)
            processes.end(list(running.values()), STOP_WITHIN_S)
            processes.kill(processes.wait_gone([agent] if agent else [], STOP_WITHIN_S))

    def kill(self, name: str) -> None:
        """SIGKILL: a load balancer's or a node's programs are gone at once, and nobody is told."""
        with self.store.locked():
            notes = self._notes()
            instance = self._program_instance(notes, name)
            processes.kill(list(self._running(notes, instance).values()))

    # Commands and programs inside

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` in an instance's namespace."""
        return processes.entering(self.topology.instance(name).namespace, command)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a gale-ctl that is run inside ask there, and not at the socket of a gale-lb of this machine, which
        namespaces do not hide; and an operator's, in a lab with certificates."""
        proof = certificates.environment(self.store.tls) if self._notes().options.tls else {}
        return {"GALE_SERVER": f"127.0.0.1:{API_PORT}", **proof}

    def run(self, name: str, command: Sequence[str], timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in an instance's namespace, with its output caught."""
        return subprocess.run(
            self.command(name, command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **self.environment},
        )

    def traffic(
        self,
        endpoints: Sequence[str] | None = None,
        *,
        concurrency: int = 8,
        rate: float = 100.0,
        interval_s: float = 0.2,
        duration_s: float = 600.0,
        keep: bool = False,
    ) -> Traffic:
        """Requests from the client, to every load balancer unless told; counts are per endpoint, rate 0 is no limit.
        `keep`: connections are used again."""
        topology = self.topology
        plan = Plan(tuple(endpoints or topology.endpoints), concurrency, rate, interval_s, duration_s, keep)
        return Traffic(topology.client.namespace, plan, self.store.log("traffic"))

    def orders(
        self,
        nodes: Sequence[str],
        *,
        names: Sequence[str] = (),
        inside: str | None = None,
        clients: int = 1,
        interval_s: float = 0.02,
        count: int = 0,
        kinds: Sequence[str] = ("drain", "undrain"),
        reads: float = 0.0,
        keep: bool = False,
        seed: int = 1,
    ) -> Orders:
        """Operators who drain and undrain these nodes, through the load balancers `names`, or all that were started.

        inside  only through this one, on its own machine: also when nobody reaches it
        keep    connections are kept from one order to the next; without, none suffers from what happened before
        """
        place, servers = self.topology.switch_namespace, self.servers
        if names:
            servers = tuple(api_server(self.topology.instance(name)) for name in names)
        if inside is not None:
            place, servers = self.topology.instance(inside).namespace, (f"127.0.0.1:{API_PORT}",)
        settings = {
            "servers": ",".join(servers),
            "nodes": ",".join(nodes),
            "clients": clients,
            "interval": interval_s,
            "count": count,
            "kinds": ",".join(kinds),
            "reads": reads,
            "seed": seed,
        }
        arguments = [f"--{key}={value}" for key, value in settings.items()] + (["--keep"] if keep else [])
        return Orders(place, arguments, self.store.log("orders"), self.environment)

    def flows(
        self,
        endpoint: str,
        count: int = 100,
        *,
        client: str = "client",
        protocol: str = "tcp",
        interval_s: float = 0.3,
        sources: Sequence[str] = (),
        first_port: int = 0,
        seed: str = "0",
    ) -> Flows:
        """Flows from a client that are kept and asked on all the time. `seed`: another for each such group."""
        settings = {"at": endpoint, "flows": count, "protocol": protocol, "interval": interval_s}
        arguments = [f"--{key}={value}" for key, value in settings.items()]
        arguments += [f"--seed={seed}", f"--first-port={first_port}", *(f"--source={source}" for source in sources)]
        return Flows(self.topology.instance(client).namespace, arguments, self.store.log("flows"))

    def load(self, endpoint: str, connections: int = CONNECTIONS, script: Path | None = None) -> Load:
        """wrk from the client, to one load balancer: as many requests as go through, or as its script paces them."""
        return Load(self.command("client", []), endpoint, connections, script)

    def watch(self, interval_s: float = 0.1, *, inside: str | None = None, local: bool = False) -> Watch:
        """Every load balancer's view of the cluster, asked again and again from the private side.

        inside  only this one's, asked on its own machine: also when nobody reaches it
        local   what each says of itself alone, at once
        """
        place, servers = self.topology.switch_namespace, self.servers
        if inside is not None:
            place, servers = self.topology.instance(inside).namespace, (f"127.0.0.1:{API_PORT}",)
        return Watch(place, servers, self.store.log("watch"), interval_s, local, self.environment)

    def enable_kernel_routing(self, name: str) -> None:
        """Plain kernel routing client → load balancer → node, without gale: what gale is measured against."""
        topology = self.topology
        network.enable_kernel_routing(topology, topology.instance(name))

    @contextmanager
    def noted(self) -> Iterator[Notes]:
        """The lab's notes, to be changed: kept when the work is done."""
        with self.store.locked():
            notes = self._notes()
            yield notes
            self.store.write(notes)

    # Inside

    def _notes(self) -> Notes:
        notes = self.store.read()
        if notes is None:
            raise LabError("there is no lab: gale-lab up")
        return notes

    def _namespaces(self) -> list[str]:
        return [namespace for namespace in netns.existing() if is_lab_namespace(self.prefix, namespace)]

    def _program_instance(self, notes: Notes, name: str) -> Instance:
        instance = notes.options.topology(self.prefix).instance(name)
        if instance.role not in PROGRAMMED:
            raise LabError(f"{name} runs no program: only load balancers and nodes start and stop")
        return instance

    def _tls(self, options: LabOptions, instance: Instance) -> str:
        return certificates.toml(self.store.tls, instance.name) if options.tls else ""

    def _running(self, notes: Notes, instance: Instance) -> dict[str, Process]:
        started = notes.processes.get(instance.name, {})
        return {kind: process for kind, process in started.items() if processes.alive(process)}

    def _runs(self, notes: Notes, instance: Instance) -> bool:
        if instance.role not in PROGRAMMED:
            return netns.path(instance.namespace).exists()
        return self._running(notes, instance).keys() == programs(self.store, notes.options, instance).keys()

    def _configure(
        self, topology: Topology, options: LabOptions, instance: Instance, members: Sequence[Instance] = ()
    ) -> None:
        """Raises ConfigError for what the instance would refuse."""
        file = self.store.config(instance.name)
        if instance.role is Role.LOAD_BALANCER:
            text = lb_toml(topology, options, self.store.state(instance.name), members)
            file.write_text(text + self._tls(options, instance))
            load_lb(file)
        else:
            file.write_text(node_toml(topology, options, instance.name, members) + self._tls(options, instance))
            load_node(file)

    def _start(self, notes: Notes, instance: Instance) -> None:
        running = self._running(notes, instance)
        for kind, command in programs(self.store, notes.options, instance).items():
            if kind not in running:
                log = self.store.log(instance.name if kind in ("lb", "agent") else f"{instance.name}-server")
                started = notes.processes.setdefault(instance.name, {})
                started[kind] = processes.spawn(instance.namespace, command, log, notes.environments.get(instance.name))
                self.store.write(notes)

    def _remove(self) -> None:
        namespaces = self._namespaces()
        try:
            notes = self.store.read()
        except LabError:
            notes = None  # unreadable notes must not keep a lab from being removed
        recorded = [process for kinds in notes.processes.values() for process in kinds.values()] if notes else []
        processes.kill(recorded)
        for _ in range(SWEEPS_MAX):  # what is killed may have started something meanwhile
            if not (left := processes.in_namespaces(namespaces)):
                break
            processes.kill(left)
        pins.remove(namespaces)
        network.remove(namespaces)
        self.store.remove()
