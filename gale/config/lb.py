"""lb.toml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from gale.config.reading import Address, Duration, Interface, Name, Port, Table, TlsFiles, read, refuse_unless
from gale.core.shared import HealthPolicy, Service, SharedConfig

DEFAULT_SERVICE = "default"


class PrivateInterface(Table, frozen=True):
    net_interface_private: Interface
    node_port: Port = 7070
    api_port: Port = 5555
    load_balancer_port: Port = 9090


class PublicInterface(Table, frozen=True):
    net_interface_public: Interface
    clients_port: Port = 8080
    virtual_addresses: tuple[Address, ...] = ()


class NodeHealth(Table, frozen=True):
    checks_before_routing: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    checks_timeout: Duration = Duration(5_000)
    black_list_after_fails: Annotated[int, msgspec.Meta(ge=-1, le=1_000_000)] = -1
    black_list_expiry: Duration = Duration(60_000)


class QuorumEntry(Table, frozen=True):
    ip: Address
    port: Port | None = None


class LoadBalancerQuorum(Table, frozen=True):
    addresses: Annotated[tuple[QuorumEntry, ...], msgspec.Meta(min_length=1, max_length=7)]
    enforce_single_configuration: bool = False


class Forwarding(Table, frozen=True):
    mode: str = "l4"
    protocols: tuple[str, ...] = ("tcp",)
    target_port: Port | None = None


class ServiceEntry(Table, frozen=True):
    name: Name
    port: Port
    addresses: tuple[Address, ...] = ()
    protocols: tuple[str, ...] = ("tcp",)
    mode: str = "l4"
    target_port: Port | None = None


class State(Table, frozen=True):
    directory: str = "/var/lib/gale"


class LbFile(Table, frozen=True):
    private_interface: PrivateInterface
    public_interface: PublicInterface
    load_balancer_quorum: LoadBalancerQuorum
    node_health: NodeHealth = NodeHealth()
    forwarding: Forwarding = Forwarding()
    service: tuple[ServiceEntry, ...] = ()
    state: State = State()
    tls: TlsFiles | None = None


@dataclass(frozen=True, slots=True)
class LbConfig:
    """Everything gale-lb is told. `quorum`: the "IP:PORT" of every load balancer, this one included."""

    private_interface: str
    public_interface: str
    virtual_addresses: tuple[str, ...]
    node_port: int
    api_port: int
    quorum: tuple[str, ...]
    enforces: bool
    shared: SharedConfig
    state_directory: Path
    warnings: tuple[str, ...]
    tls: TlsFiles | None = None

    @property
    def load_balancers(self) -> tuple[str, ...]:
        """The private addresses of all, this one included, without their ports."""
        return tuple(entry.rpartition(":")[0] for entry in self.quorum)


def load_lb(path: Path) -> LbConfig:
    file = read(path, LbFile)
    private, public = file.private_interface, file.public_interface
    quorum = tuple(
        f"{entry.ip}:{entry.port or private.load_balancer_port}" for entry in file.load_balancer_quorum.addresses
    )
    services = _services(path, file)
    health = file.node_health
    refuse_unless(
        len(set(quorum)) == len(quorum), path, "load_balancer_quorum.addresses", list(quorum), "lists an address twice"
    )
    refuse_unless(
        private.net_interface_private != public.net_interface_public,
        path,
        "public_interface.net_interface_public",
        public.net_interface_public,
        "is the private interface too; this version needs two interfaces",
    )
    ports = {
        "node_port": private.node_port,
        "api_port": private.api_port,
        "load_balancer_port": private.load_balancer_port,
    }
    for key, port in ports.items():
        twins = [other for other, number in ports.items() if number == port and other != key]
        refuse_unless(
            not twins, path, f"private_interface.{key}", port, f"is {''.join(twins[:1])} as well; take another"
        )
    for key in ("checks_timeout", "black_list_expiry"):
        refuse_unless(
            getattr(health, key) >= 1_000, path, f"node_health.{key}", f"{getattr(health, key)}ms", 'the least is "1s"'
        )
    refuse_unless(
        health.black_list_after_fails != 0,
        path,
        "node_health.black_list_after_fails",
        0,
        "would ban a node that never failed; write -1 to never ban, or 1 and more",
    )
    policy = HealthPolicy(
        health.checks_before_routing, health.checks_timeout, health.black_list_after_fails, health.black_list_expiry
    )
    return LbConfig(
        private_interface=private.net_interface_private,
        public_interface=public.net_interface_public,
        virtual_addresses=public.virtual_addresses,
        node_port=private.node_port,
        api_port=private.api_port,
        quorum=quorum,
        enforces=file.load_balancer_quorum.enforce_single_configuration,
        shared=SharedConfig(policy, services),
        state_directory=Path(file.state.directory),
        warnings=tuple(_warnings(file)),
        tls=file.tls,
    )


def _services(path: Path, file: LbFile) -> tuple[Service, ...]:
    public, forwarding = file.public_interface, file.forwarding
    first = ServiceEntry(
        DEFAULT_SERVICE,
        public.clients_port,
        public.virtual_addresses,
        forwarding.protocols,
        forwarding.mode,
        forwarding.target_port,
    )
    entries = {"forwarding": first, **{f"service[{i}]": entry for i, entry in enumerate(file.service)}}
    names: set[str] = set()
    ports: set[tuple[int, str]] = set()
    for key, entry in entries.items():
        refuse_unless(entry.name not in names, path, f"{key}.name", entry.name, "is the name of another service")
        names.add(entry.name)
        refuse_unless(entry.mode == "l4", path, f"{key}.mode", entry.mode, 'this version forwards in "l4" only')
        refuse_unless(
            entry.protocols == ("tcp",),
            path,
            f"{key}.protocols",
            list(entry.protocols),
            'this version forwards ["tcp"] only',
        )
        for address in entry.addresses or ("own",):
            refuse_unless(
                (entry.port, address) not in ports,
                path,
                f"{key}.port",
                entry.port,
                "another service has this port and address",
            )
            ports.add((entry.port, address))
    return tuple(
        Service(e.name, e.port, e.target_port or e.port, tuple(sorted(e.addresses)), e.protocols, e.mode)
        for e in entries.values()
    )


def _warnings(file: LbFile) -> list[str]:
    expected = file.private_interface.load_balancer_port
    warnings = []
    others = sorted({e.port for e in file.load_balancer_quorum.addresses if e.port not in (None, expected)})
    if others:
        warnings.append(
            f"load_balancer_quorum.addresses name port {', '.join(map(str, others))}"
            f" and load_balancer_port is {expected}: peers dial the entry's port, so this load balancer listens there"
        )
    if len(file.load_balancer_quorum.addresses) % 2 == 0:
        warnings.append("an even number of load balancers survives no more failures than one fewer: list an odd number")
    return warnings
