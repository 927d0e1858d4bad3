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
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gale.config import load_lb
from gale.errors import LabError
from gale.lab import certificates, netns, network, processes, view
from gale.lab.feed import Traffic, Watch, python
from gale.lab.options import LabOptions, lb_toml, node_toml
from gale.lab.processes import Process
from gale.lab.store import Notes, Store
from gale.lab.topology import NODE_HTTP_PORT, Instance, Role, Topology, check_prefix, is_lab_namespace
from gale.lab.traffic import Plan

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
    def topology(self) -> Topology:
        """Raises LabError when there is no lab."""
        return self._notes().options.topology(self.prefix)

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
        """Raise LabError with the last words of an instance whose programs have ended; of all of them unless told."""
        notes = self._notes()
        for instance in notes.options.topology(self.prefix).instances:
            if (not names or instance.name in names) and not self._runs(notes, instance):
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
                    text = lb_toml(topology, options, self.store.state(lb.name))
                    self.store.config(lb.name).write_text(text + self._tls(options, lb))
                    load_lb(self.store.config(lb.name))  # what it would refuse is refused before anything is built
                network.build(topology)
                for node in topology.node_instances:
                    self.store.config(node.name).write_text(node_toml(topology, node.name) + self._tls(options, node))
                for instance in topology.instances:
                    self._start(notes, instance)
            except BaseException:
                self._remove()
                raise

    def wait_routing(self, within_s: float, check: Callable[[], None] = lambda: None) -> None:
        """Wait until every node routes on every load balancer. `check` is called often and may raise."""
        topology = self.topology
        deadline = time.monotonic() + within_s
        with self.watch() as watch:
            while True:
                check()
                nodes = [node.name for node in topology.node_instances]
                missing = view.missing_for_routing(watch.latest, topology.api_servers, nodes)
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

    def start(self, name: str) -> None:
        """Start what does not run of a load balancer or a node."""
        with self.store.locked():
            notes = self._notes()
            self._start(notes, self._program_instance(notes, name))

    def stop(self, name: str) -> None:
        """End a load balancer's or a node's programs in good order: a node says goodbye before its server ends."""
        with self.store.locked():
            notes = self._notes()
            instance = self._program_instance(notes, name)
            running = self._running(notes, instance)
            if agent := running.pop("agent", None):
                processes.end([agent], STOP_WITHIN_S)
                time.sleep(GOODBYE_GRACE_S)
            processes.end(list(running.values()), STOP_WITHIN_S)

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
        """What makes a gale-ctl that is run inside an operator's; nothing is needed in a lab without certificates."""
        return certificates.environment(self.store.tls) if self._notes().options.tls else {}

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
    ) -> Traffic:
        """Requests from the client, to every load balancer unless told; counts are per endpoint, rate 0 is no limit."""
        topology = self.topology
        plan = Plan(tuple(endpoints or topology.endpoints), concurrency, rate, interval_s, duration_s)
        return Traffic(topology.client.namespace, plan, self.store.log("traffic"))

    def watch(self, interval_s: float = 0.1) -> Watch:
        """Every load balancer's view of the cluster, asked again and again from the private side."""
        topology = self.topology
        return Watch(
            topology.switch_namespace, topology.api_servers, self.store.log("watch"), interval_s, self.environment
        )

    def enable_kernel_routing(self, name: str) -> None:
        """Plain kernel routing client → load balancer → node, without gale: what gale is measured against."""
        topology = self.topology
        network.enable_kernel_routing(topology, topology.instance(name))

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
        if instance.role is Role.CLIENT:
            raise LabError("the client runs no program: only load balancers and nodes start and stop")
        return instance

    def _tls(self, options: LabOptions, instance: Instance) -> str:
        return certificates.toml(self.store.tls, instance.name) if options.tls else ""

    def _running(self, notes: Notes, instance: Instance) -> dict[str, Process]:
        started = notes.processes.get(instance.name, {})
        return {kind: process for kind, process in started.items() if processes.alive(process)}

    def _runs(self, notes: Notes, instance: Instance) -> bool:
        if instance.role is Role.CLIENT:
            return netns.path(instance.namespace).exists()
        return self._running(notes, instance).keys() == self._programs(instance).keys()

    def _programs(self, instance: Instance) -> dict[str, list[str]]:
        """The programs of an instance, in the order in which they start."""
        config = str(self.store.config(instance.name))
        match instance.role:
            case Role.LOAD_BALANCER:
                return {"lb": python("gale.cli.lb", "--config", config)}
            case Role.NODE:
                server = python("gale.lab.server", "--name", instance.name, "--port", str(NODE_HTTP_PORT))
                return {"server": server, "agent": python("gale.cli.node", "--config", config)}
            case Role.CLIENT:
                return {}

    def _start(self, notes: Notes, instance: Instance) -> None:
        running = self._running(notes, instance)
        for kind, command in self._programs(instance).items():
            if kind not in running:
                log = self.store.log(f"{instance.name}-server" if kind == "server" else instance.name)
                started = notes.processes.setdefault(instance.name, {})
                started[kind] = processes.spawn(instance.namespace, command, log)
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
        network.remove(namespaces)
        self.store.remove()
