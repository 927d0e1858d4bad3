"""What a lab can be asked for, and the configuration files that follow from it: pure values and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gale.errors import ConfigError
from gale.lab.topology import CLIENTS_PORT, MTU, NODE_HTTP_PORT, Instance, Layout, Topology

MODES = ("l2", "l3", "l4")
TUNNELS = ("ipv4", "ipv6")
IPERF_PORT = 5200
IPERF = "iperf-"
IPERF_NODE = "node-0"  # a run of iperf3 is many connections, and all must end at one node
LEAST_MTU = 1280


@dataclass(frozen=True, slots=True)
class LabService:
    """`target_port`: on the nodes; the same as `port` where the node is asked by the client's own packets."""

    name: str
    mode: str
    port: int
    target_port: int


@dataclass(frozen=True, slots=True)
class LabOptions:
    """Durations are written as in gale's configuration: "500ms", "5s", "5m".

    modes       of one service each, all over the same nodes; the first one's port is the one that clients use
    tunnel      what carries the packets of l3: "ipv4" or "ipv6"
    iperf       one more service for each mode, at node-0 only, with iperf3 behind it
    flows       how many flows gale-lb's tables have room for; 0: as many as usual
    learning_time  for how long a slot that has moved learns, in l2 and l3: less than usual, so that tests need not wait
    members     so many load balancers, the first ones, are in the configured list and run; the machines of the others
                are there and wait to become members. None: all.

    The wiring's options are explained in topology.py.
    """

    load_balancers: int = 3
    nodes: int = 3
    modes: tuple[str, ...] = ("l4",)
    tunnel: str = "ipv4"
    ipv6: bool = False
    udp: bool = False
    one_arm: bool = False
    subnets: bool = False
    virtual: bool = False
    iperf: bool = False
    far_mtu: int = 0
    nodes_mtu: int = MTU
    flows: int = 0
    learning_time: str = "3s"
    checks_before_routing: int = 3
    checks_timeout: str = "1s"
    black_list_after_fails: int = -1
    black_list_expiry: str = "60s"
    enforce_single_configuration: bool = False
    tls: bool = False
    members: int | None = None
    drain_timeout: str = "0s"

    def __post_init__(self) -> None:
        if self.members is not None and not 1 <= self.members <= self.load_balancers:
            raise ConfigError(
                f"{self.members} members: a lab of {self.load_balancers} load balancers has 1 to all of them"
            )
        for mode in self.modes:
            if mode not in MODES or self.modes.count(mode) > 1:
                raise ConfigError(f"mode {mode!r}: write each of {', '.join(MODES)} at most once")
        if not self.modes:
            raise ConfigError(f"no mode: write at least one of {', '.join(MODES)}")
        if self.tunnel not in TUNNELS or (self.tunnel == "ipv6" and not self.ipv6):
            raise ConfigError(f"tunnel {self.tunnel!r}: write one of {', '.join(TUNNELS)}; the latter needs IPv6")
        if self.subnets and "l2" in self.modes:
            raise ConfigError("mode 'l2' with nodes behind a router: l2 reaches the nodes of its own wire only")
        if self.one_arm and self.layout().direct and not self.virtual:
            raise ConfigError(
                "modes l2 and l3 on one arm: nodes would have the addresses that they report to; use virtual ones"
            )
        for mtu in (self.far_mtu or MTU, self.nodes_mtu):
            if not LEAST_MTU <= mtu <= MTU:
                raise ConfigError(f"MTU {mtu}: write {LEAST_MTU}, which IPv6 needs, to {MTU}")

    def layout(self) -> Layout:
        direct = any(mode != "l4" for mode in self.modes)
        return Layout(self.ipv6, direct, self.one_arm, self.subnets, self.virtual, self.far_mtu, self.nodes_mtu)

    def topology(self, prefix: str) -> Topology:
        return Topology(prefix, self.load_balancers, self.nodes, self.layout())

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "LabOptions":
        return cls(**{**record, "modes": tuple(record["modes"])})

    @property
    def protocols(self) -> tuple[str, ...]:
        return ("tcp", "udp") if self.udp else ("tcp",)

    @property
    def services(self) -> tuple[LabService, ...]:
        """The first is the one in [forwarding]."""
        web = [_web(mode, first=mode == self.modes[0]) for mode in self.modes]
        return (*web, *(_iperf(mode) for mode in self.modes if self.iperf))

    def service(self, mode: str) -> LabService:
        """The one that answers requests in this mode."""
        return next(service for service in self.services if service.mode == mode)


def server_arguments(options: LabOptions) -> list[str]:
    """What the server of each node is told."""
    ports = {service.target_port for service in options.services if not service.name.startswith(IPERF)}
    words = [word for port in sorted({NODE_HTTP_PORT, *ports}) for word in ("--port", str(port))]
    return [*words, *(["--udp"] if options.udp else []), *(["--ipv6"] if options.ipv6 else [])]


def iperf_ports(options: LabOptions) -> dict[str, int]:
    """By the service's name."""
    return {s.name: s.target_port for s in options.services if s.name.startswith(IPERF)}


def _web(mode: str, *, first: bool) -> LabService:
    port = CLIENTS_PORT if first else CLIENTS_PORT + int(mode[1:])
    return LabService("default" if first else mode, mode, port, NODE_HTTP_PORT if mode == "l4" else port)


def _iperf(mode: str) -> LabService:
    port = IPERF_PORT + int(mode[1:])
    return LabService(f"{IPERF}{mode}", mode, port, port)


WEB = """
[web]
address = "private"
"""
"""Of load balancers and of nodes: in a lab nobody else is there."""


def lb_toml(topology: Topology, options: LabOptions, state_directory: Path, members: Sequence[Instance] = ()) -> str:
    """The configuration of a load balancer; they differ in their state directories alone.

    `members`: the configured list; none: the first ones, as the options have it.
    """
    quorum = _addresses(members or topology.lbs[: options.members])
    first, *more = options.services
    flows = f"flows = {options.flows}\n" if options.flows else ""
    services = "".join(_service_toml(topology, options, service) for service in more)
    return f"""\
[private_interface]
net_interface_private = "private"

[public_interface]
clients_port = {first.port}
net_interface_public = "{topology.layout.front}"
{_virtual(topology, "virtual_addresses")}
[node_health]
checks_before_routing = {options.checks_before_routing}
checks_timeout = "{options.checks_timeout}"
black_list_after_fails = {options.black_list_after_fails}
black_list_expiry = "{options.black_list_expiry}"

[load_balancer_quorum]
enforce_single_configuration = {str(options.enforce_single_configuration).lower()}
addresses = [
{quorum}
]

[forwarding]
{_forwarding(options, first)}{flows}learning_time = "{options.learning_time}"
{services}
[state]
directory = "{state_directory}"

[api]
socket = "{state_directory}.sock"
{WEB}"""


def _service_toml(topology: Topology, options: LabOptions, service: LabService) -> str:
    head = f'\n[[service]]\nname = "{service.name}"\nport = {service.port}\n'
    return head + _forwarding(options, service) + _virtual(topology, "addresses")


def _forwarding(options: LabOptions, service: LabService) -> str:
    """What a service says of its packets; a key is left out where it would say what holds anyway."""
    lines = [f'mode = "{service.mode}"']
    if service.target_port != service.port:
        lines.append(f"target_port = {service.target_port}")
    if options.udp:
        lines.append('protocols = ["tcp", "udp"]')
    if service.mode == "l3" and options.tunnel != "ipv4":
        lines.append(f'tunnel = "{options.tunnel}"')
    return "\n".join(lines) + "\n"


def _virtual(topology: Topology, key: str) -> str:
    """The addresses that clients use; they go without saying when they are each load balancer's own ones of IPv4."""
    if not topology.layout.virtual and not topology.layout.ipv6:
        return ""
    return f"{key} = {_list([address for lb in topology.lbs for _, address in lb.serves])}\n"


def node_toml(topology: Topology, options: LabOptions, name: str, members: Sequence[Instance] = ()) -> str:
    addresses = _addresses(members or topology.lbs[: options.members])
    names = [service.name for service in options.services if not service.name.startswith(IPERF)]
    services = "" if name == IPERF_NODE or not options.iperf else f"services = {_list(names)}\n"
    return f"""\
[load_balancer]
addresses = [
{addresses}
]

[node]
name = "{name}"
drain_timeout = "{options.drain_timeout}"
{services}{WEB}"""


def _addresses(lbs: Sequence[Instance]) -> str:
    return "\n".join(f'    {{ ip = "{lb.private}" }},' for lb in lbs)


def _list(words: Sequence[str]) -> str:
    quoted = ", ".join(f'"{word}"' for word in words)
    return f"[{quoted}]"
