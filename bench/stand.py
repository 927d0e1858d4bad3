"""The box that everything is measured through: a lab's namespaces, with the forwarder's work on a core of its own.

    client ── switch ── public [lb-0: the forwarder] private ── switch ── node-0, node-1, node-2
    └────── core 0 ──────┘     └────── core 1 ─────┘       └────────────── core 0 ─────────────┘

What a veth receives is worked on by the core that sent it, unless NAPI takes it, in a kernel thread (`threaded`), and
that can be bound to a core. So it is at both ends of the forwarder's two wires: towards the forwarder on core 1, away
from it on core 0. Processes are bound as well, and so are the kernel's unbound workers, to core 0: what they clean up
is mostly clients' and nodes'.

The wires carry frames of the MTU and no larger ones, as wires do: none of the four ends has TSO, and each may merge
what it receives (GRO). Without TSO every frame goes through NAPI. A card would cut large segments for nothing, where
here the sender's core does it: the kernel's own paths, which merge and cut again, pay for that, and the end that
receives does not get it for nothing.

Nodes answer through nginx with a dozen bytes, because the lab's own server is in Python and would be the limit.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gale.errors import HostError
from gale.lab import processes
from gale.lab.cluster import Lab
from gale.lab.options import IPERF, IPERF_NODE, LabOptions
from gale.lab.topology import NODE_HTTP_PORT, Instance

OTHERS_CORE, FORWARDER_CORE = 0, 1
FORWARDER = "lb-0"
MODES = ("l4", "l2", "l3")
WORKERS = Path("/sys/devices/virtual/workqueue/cpumask")
WITHIN_S = 10.0
FEATURES = re.compile(r"^(tcp-segmentation-offload|generic-receive-offload): (on|off)", re.MULTILINE)


class Stand:
    """A lab of one load balancer, whose gale-lb is not needed by most of those who are measured in its place."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        topology, self.options = lab.topology, lab.options
        self.forwarder = topology.instance(FORWARDER)
        self.nodes = topology.node_instances
        self.bulk_node = topology.instance(IPERF_NODE)
        self.client = topology.client

    @property
    def address(self) -> str:
        """What clients ask."""
        return str(self.forwarder.public)

    def run(self, name: str, command: Sequence[str], said: str = "") -> str:
        """What a command says in an instance's namespace. Raises HostError when it fails."""
        return _run(self.lab.command(name, command), said)

    def sysctl(self, setting: str) -> None:
        """Of the forwarder."""
        self.run(FORWARDER, ["sysctl", "-qw", setting])

    def port(self, mode: str) -> int:
        return self.options.service(mode).port

    def bulk_port(self, mode: str) -> int:
        return next(service.port for service in self.options.services if service.name == f"{IPERF}{mode}")

    def wire(self) -> None:
        """The wires as the module's text has them. To be done again when a program was attached or taken off."""
        for interface in ("public", "private"):
            _place(self.forwarder.namespace, interface, FORWARDER_CORE)
            _place(self.lab.topology.switch_namespace, f"{FORWARDER}-{interface[:3]}", OTHERS_CORE)

    def bind(self, name: str = FORWARDER) -> None:
        """A load balancer's programs to the forwarder's core."""
        for process in self.lab.running(name).values():
            bind(process.pid, FORWARDER_CORE)


@contextmanager
def stand(prefix: str = "gale-traffic") -> Iterator[Stand]:
    """Raises HostError where there are no two cores."""
    here = os.sched_getaffinity(0)
    if not {OTHERS_CORE, FORWARDER_CORE} <= here:
        raise HostError(f"this process may use cores {sorted(here)}: 0 and 1 are needed, one for the forwarder")
    lab = Lab(prefix)
    lab.down()
    os.sched_setaffinity(0, {OTHERS_CORE})  # whatever is started from here inherits it
    workers = WORKERS.read_text()
    WORKERS.write_text(f"{1 << OTHERS_CORE:x}")
    try:
        lab.up(LabOptions(load_balancers=1, modes=MODES, iperf=True))
        lab.wait_routing(within_s=30)
        made = Stand(lab)
        for node in made.nodes:
            _serve(lab, node)
        yield made
    finally:
        lab.down()
        WORKERS.write_text(workers)
        os.sched_setaffinity(0, here)


def bind(pid: int, core: int) -> None:
    """Every thread that it has."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


def _serve(lab: Lab, node: Instance) -> None:
    """nginx in the place of the node's server."""
    processes.kill([lab.running(node.name)["server"]])
    ports = {NODE_HTTP_PORT, *(service.target_port for service in lab.options.services)}
    ports -= {service.target_port for service in lab.options.services if service.name.startswith(IPERF)}
    listens = " ".join(f"listen {port} backlog=4096;" for port in sorted(ports))
    file = lab.store.config(f"{node.name}-nginx").with_suffix(".conf")
    file.write_text(
        f"{nginx_head(lab, node)} http {{ access_log off; keepalive_requests 1000000000;"
        f' server {{ {listens} location / {{ return 200 "{node.name}\\n"; }} }} }}\n'
    )
    started = processes.spawn(node.namespace, ["nginx", "-c", str(file)], lab.store.log(f"{node.name}-nginx"))
    with lab.noted() as notes:
        notes.processes[node.name]["server"] = started
    wait_listening(lab, node, NODE_HTTP_PORT, started)


def nginx_head(lab: Lab, instance: Instance) -> str:
    """What any nginx of the lab is told: one process, which stays in the foreground and has files of its own."""
    errors = lab.store.log(f"{instance.name}-nginx")
    pid = lab.store.config(f"{instance.name}-nginx").with_suffix(".pid")
    return (
        f"daemon off; master_process off; pid {pid}; error_log {errors} warn;"
        " events { worker_connections 16000; multi_accept on; }"
    )


def wait_listening(lab: Lab, instance: Instance, port: int, process: processes.Process) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not lab.run(instance.name, ["ss", "-Hltn", f"sport = :{port}"]).stdout:
        if not processes.alive(process) or time.monotonic() > deadline:
            words = lab.log(instance.name).strip().splitlines()
            raise HostError(f"nothing listens on port {port} of {instance.name}: {words[-1] if words else ''}")
        time.sleep(0.02)


def _place(namespace: str, interface: str, core: int) -> None:
    """What an interface receives is worked on by this core. Raises HostError when the kernel has it otherwise."""
    _inside(namespace, f"ethtool -K {interface} gro on; ethtool -K {interface} tso off")
    found = dict(FEATURES.findall(_inside(namespace, f"ethtool -k {interface}")))
    if found != {"generic-receive-offload": "on", "tcp-segmentation-offload": "off"}:
        raise HostError(f"{interface} in {namespace}: {found}; GRO on and TSO off are needed")
    threaded = f"/sys/class/net/{interface}/threaded"
    _inside(namespace, f"echo 0 >{threaded}")
    before = _napi_threads(interface)
    _inside(namespace, f"echo 1 >{threaded}")
    threads = _napi_threads(interface) - before
    if not threads:
        raise HostError(f"{interface} in {namespace}: no thread of NAPI has come; Linux 5.12 or newer is needed")
    for pid in threads:
        os.sched_setaffinity(pid, {core})


def _napi_threads(interface: str) -> set[int]:
    found = set()
    for entry in processes.PROC.glob("[0-9]*/comm"):
        with suppress(OSError):
            if entry.read_text().startswith(f"napi/{interface}-"):
                found.add(int(entry.parent.name))
    return found


def _inside(namespace: str, script: str) -> str:
    """`ip netns exec` shows the namespace's own /sys."""
    return _run(["ip", "netns", "exec", namespace, "sh", "-ec", script])


def _run(command: Sequence[str], said: str = "") -> str:
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if done.returncode:
        raise HostError(f"{' '.join(command)}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout
