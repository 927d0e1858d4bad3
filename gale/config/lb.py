"""lb.toml."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from gale.config.effective import own_keys
from gale.config.reading import (
    Address,
    Duration,
    Interface,
    Port,
    ServiceAddress,
    Table,
    TlsFiles,
    WebAddress,
    read,
    refuse_unless,
)
from gale.config.services import DEFAULT_SERVICE, OWN, Place, ServiceEntry, services
from gale.core.shared import HealthPolicy, SharedConfig


class PrivateInterface(Table, frozen=True):
    net_interface_private: Interface
    node_port: Port = 7070
    api_port: Port = 5555
    load_balancer_port: Port = 9090


class PublicInterface(Table, frozen=True):
    net_interface_public: Interface
    clients_port: Port = 8080
    virtual_addresses: tuple[ServiceAddress, ...] = ()


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


LEARNING_MOST_MS = 600_000


class Forwarding(Table, frozen=True):
    mode: str = "l4"
    protocols: tuple[str, ...] = ("tcp",)
    target_port: Port | None = None
    tunnel: str | None = None
    flows: Annotated[int, msgspec.Meta(ge=1 << 10, le=1 << 24)] = 1 << 18
    learning_time: Duration = Duration(60_000)


class State(Table, frozen=True):
    directory: str = "/var/lib/gale"


class Web(Table, frozen=True):
    """Metrics, health and the page, over HTTP."""

    address: WebAddress = WebAddress("loopback")
    port: Port = 5556


class Api(Table, frozen=True):
    """The management API on this machine, beside api_port."""

    socket: Annotated[str, msgspec.Meta(pattern=r"^(off|/[^\0]{1,100})$")] = "/run/gale/lb.sock"


class LbFile(Table, frozen=True):
    private_interface: PrivateInterface
    public_interface: PublicInterface
    load_balancer_quorum: LoadBalancerQuorum
    node_health: NodeHealth = NodeHealth()
    forwarding: Forwarding = Forwarding()
    service: tuple[ServiceEntry, ...] = ()
    state: State = State()
    web: Web = Web()
    api: Api = Api()
    tls: TlsFiles | None = None


@dataclass(frozen=True, slots=True)
class LbConfig:
    """Everything gale-lb is told. `quorum`: the "IP:PORT" of every load balancer, this one included. The two interfaces
    may be one. `flows`: how many are known at a time (l4), a power of two. `learning_s`: so long after a slot has moved
    a connection that nobody knows is the earlier owner's (l2, l3). `own`: what may differ between load balancers, to be
    shown. `web_address`: "off", "loopback", "private" or an IPv4 address."""

    private_interface: str
    public_interface: str
    flows: int
    learning_s: float
    node_port: int
    api_port: int
    quorum: tuple[str, ...]
    enforces: bool
    shared: SharedConfig
    state_directory: Path
    warnings: tuple[str, ...]
    own: Mapping[str, str]
    web_address: str
    web_port: int
    api_socket: Path | None = None
    tls: TlsFiles | None = None

    @property
    def load_balancers(self) -> tuple[str, ...]:
        """The private addresses of all, this one included, without their ports."""
        return tuple(entry.rpartition(":")[0] for entry in self.quorum)


def load_lb(path: Path) -> LbConfig:
    file = read(path, LbFile)
    private, public, flows = file.private_interface, file.public_interface, file.forwarding.flows
    quorum = tuple(
        f"{entry.ip}:{entry.port or private.load_balancer_port}" for entry in file.load_balancer_quorum.addresses
    )
    health = file.node_health
    refuse_unless(
        len(set(quorum)) == len(quorum), path, "load_balancer_quorum.addresses", list(quorum), "lists an address twice"
    )
    ports = {
        "private_interface.node_port": private.node_port,
        "private_interface.api_port": private.api_port,
        "private_interface.load_balancer_port": private.load_balancer_port,
    }
    if file.web.address != "off":
        ports["web.port"] = file.web.port
    for key, port in ports.items():
        twins = [other for other, number in ports.items() if number == port and other != key]
        refuse_unless(not twins, path, key, port, f"is {''.join(twins[:1])} as well; take another")
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
    refuse_unless(
        flows & (flows - 1) == 0,
        path,
        "forwarding.flows",
        flows,
        f"must be a power of two, e.g. {1 << flows.bit_length()}",
    )
    refuse_unless(
        file.forwarding.learning_time <= LEARNING_MOST_MS,
        path,
        "forwarding.learning_time",
        f"{int(file.forwarding.learning_time)}ms",
        'the most is "10m"',
    )
    policy = HealthPolicy(
        health.checks_before_routing, health.checks_timeout, health.black_list_after_fails, health.black_list_expiry
    )
    return LbConfig(
        private_interface=private.net_interface_private,
        public_interface=public.net_interface_public,
        flows=file.forwarding.flows,
        learning_s=file.forwarding.learning_time / 1_000,
        node_port=private.node_port,
        api_port=private.api_port,
        quorum=quorum,
        enforces=file.load_balancer_quorum.enforce_single_configuration,
        shared=SharedConfig(policy, services(path, _entries(file), _taken(file, quorum))),
        state_directory=Path(file.state.directory),
        warnings=tuple(_warnings(file)),
        own={**own_keys(file), "load_balancer_quorum.addresses": ", ".join(quorum)},
        web_address=file.web.address,
        web_port=file.web.port,
        api_socket=None if file.api.socket == "off" else Path(file.api.socket),
        tls=file.tls,
    )


def _entries(file: LbFile) -> Iterator[tuple[str, ServiceEntry]]:
    public, forwarding = file.public_interface, file.forwarding
    yield (
        "forwarding",
        ServiceEntry(
            DEFAULT_SERVICE,
            public.clients_port,
            public.virtual_addresses,
            forwarding.protocols,
            forwarding.mode,
            forwarding.target_port,
            forwarding.tunnel,
        ),
    )
    for position, entry in enumerate(file.service):
        yield f"service[{position}]", entry


def _taken(file: LbFile, quorum: Iterable[str]) -> Iterator[Place]:
    """Where load balancers listen themselves. With one interface, its own addresses are among those of services."""
    private = file.private_interface
    web = [file.web.port] if file.web.address not in ("off", "loopback") else []
    one_arm = private.net_interface_private == file.public_interface.net_interface_public
    for entry in quorum:
        ip, _, raft_port = entry.rpartition(":")
        for port in (private.node_port, private.api_port, int(raft_port), *web):
            yield ip, port, "tcp"
            if one_arm:
                yield OWN, port, "tcp"


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
