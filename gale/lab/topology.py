"""Who is in a lab, and where: names, namespaces and addresses as pure values.

         client                       operator (the switch itself)
           │ public 10.77.1.200         │ private 10.77.2.1
     ══════╪══ bridge "public" ══    ═══╪═ bridge "private" ═══════
           │ 10.77.1.10 …               │ 10.77.2.10 …    │ 10.77.2.100 …
         lb-0 … lb-6 ───────────────────┘                node-0 … node-99

Both bridges stand in a namespace of their own, so that nothing of a lab is in the namespace of the machine. The
switch's address on the private side is where an operator would sit: gale-ctl and the watcher ask from there.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from gale.errors import ConfigError, LabError

PUBLIC_NET = "10.77.1"
PRIVATE_NET = "10.77.2"
PREFIX_LENGTH = 24
OPERATOR_ADDRESS = f"{PRIVATE_NET}.1"
CLIENTS_PORT = 8080
NODE_HTTP_PORT = 80
API_PORT = 5555
LOAD_BALANCERS_MAX = 7
NODES_MAX = 100
PREFIX_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,20}")


class UnknownInstanceError(LabError):
    exit_code = 2


class Role(StrEnum):
    LOAD_BALANCER = "load-balancer"
    NODE = "node"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Instance:
    """One machine of the lab. `public` and `private` are its addresses, None where it has no such interface."""

    name: str
    role: Role
    namespace: str
    public: str | None
    private: str | None


def check_prefix(prefix: str) -> None:
    """Names of namespaces and folders begin with it, so it is a plain word. Raises ConfigError."""
    if not PREFIX_PATTERN.fullmatch(prefix):
        raise ConfigError(f"prefix {prefix!r}: write up to 21 of a-z, 0-9 and -, a letter first")


@dataclass(frozen=True, slots=True)
class Topology:
    prefix: str = "gale"
    load_balancers: int = 3
    nodes: int = 3

    def __post_init__(self) -> None:
        check_prefix(self.prefix)
        if not 1 <= self.load_balancers <= LOAD_BALANCERS_MAX:
            raise ConfigError(f"{self.load_balancers} load balancers: a lab has 1 to {LOAD_BALANCERS_MAX}")
        if not 1 <= self.nodes <= NODES_MAX:
            raise ConfigError(f"{self.nodes} nodes: a lab has 1 to {NODES_MAX}")

    @property
    def switch_namespace(self) -> str:
        return f"{self.prefix}-switch"

    @property
    def lbs(self) -> tuple[Instance, ...]:
        return tuple(
            Instance(
                f"lb-{i}",
                Role.LOAD_BALANCER,
                f"{self.prefix}-lb-{i}",
                f"{PUBLIC_NET}.{10 + i}",
                f"{PRIVATE_NET}.{10 + i}",
            )
            for i in range(self.load_balancers)
        )

    @property
    def node_instances(self) -> tuple[Instance, ...]:
        return tuple(
            Instance(f"node-{i}", Role.NODE, f"{self.prefix}-node-{i}", None, f"{PRIVATE_NET}.{100 + i}")
            for i in range(self.nodes)
        )

    @property
    def client(self) -> Instance:
        return Instance("client", Role.CLIENT, f"{self.prefix}-client", f"{PUBLIC_NET}.200", None)

    @property
    def instances(self) -> tuple[Instance, ...]:
        return (*self.lbs, *self.node_instances, self.client)

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.switch_namespace, *(instance.namespace for instance in self.instances))

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What clients connect to, one per load balancer, in its order."""
        return tuple(endpoint(lb) for lb in self.lbs)

    @property
    def api_servers(self) -> tuple[str, ...]:
        """Where gale-ctl asks, one per load balancer, in its order."""
        return tuple(api_server(lb) for lb in self.lbs)

    def instance(self, name: str) -> Instance:
        for instance in self.instances:
            if instance.name == name:
                return instance
        raise UnknownInstanceError(f"no instance {name!r}; there are {', '.join(i.name for i in self.instances)}")


def endpoint(lb: Instance) -> str:
    """What clients of a load balancer connect to."""
    return f"{lb.public}:{CLIENTS_PORT}"


def api_server(lb: Instance) -> str:
    """Where gale-ctl asks a load balancer."""
    return f"{lb.private}:{API_PORT}"


def is_lab_namespace(prefix: str, namespace: str) -> bool:
    """Whether a namespace bears a name that only a lab of this prefix gives, whatever its size was."""
    return re.fullmatch(rf"{re.escape(prefix)}-(lb-\d+|node-\d+|client|switch)", namespace) is not None
