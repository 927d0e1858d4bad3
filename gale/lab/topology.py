"""Who is in a lab, and where: names, namespaces and addresses as pure values.

         client                       operator (the switch itself)
           │ public 10.77.1.200         │ private 10.77.2.1
     ══════╪══ bridge "public" ══    ═══╪═ bridge "private" ═══════
           │ 10.77.1.10 …               │ 10.77.2.10 …    │ 10.77.2.100 …
         lb-0 … lb-6 ───────────────────┘                node-0 … node-99

All bridges stand in a namespace of their own, so that nothing of a lab is in the namespace of the machine. The
switch's address on the private side is where an operator would sit: gale-ctl and the watcher ask from there.

What a Layout adds. Every address 10.77.N.H has a twin fd77:N::H where there is IPv6.

- direct: nodes answer clients themselves (modes l2 and l3), so they are on the public bridge as well.
- one_arm: there is no public bridge; clients, load balancers and nodes share the private one.
- subnets: nodes are on a bridge of their own, 10.77.3.100 …, behind `router`, which also leads to the clients.
- virtual: clients use 10.77.9.10 …, one for each load balancer and served by all, who have all of them on loopback;
  routes lead there, so they can move.
- far_mtu: a second client, `far`, 10.77.4.200, behind `gate-far` and `gate-near`, between which no more bytes pass.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from gale.errors import ConfigError, LabError

MTU = 1500
CLIENTS_PORT = 8080
NODE_HTTP_PORT = 80
API_PORT = 5555
LOAD_BALANCERS_MAX = 7
NODES_MAX = 100
PREFIX_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,20}")
VIRTUAL = 9


class UnknownInstanceError(LabError):
    exit_code = 2


class Role(StrEnum):
    LOAD_BALANCER = "load-balancer"
    NODE = "node"
    CLIENT = "client"
    ROUTER = "router"


class Segment(StrEnum):
    """A bridge and what it connects."""

    PUBLIC = "public"
    PRIVATE = "private"
    NODES = "nodes"
    FAR = "far"
    MIDDLE = "middle"

    @property
    def number(self) -> int:
        return list(Segment).index(self) + 1


def address(net: int, host: int, version: int = 4) -> str:
    return f"10.77.{net}.{host}" if version == 4 else f"fd77:{net}::{host}"


def network(net: int, version: int = 4) -> str:
    return f"10.77.{net}.0/24" if version == 4 else f"fd77:{net}::/64"


PREFIX_LENGTHS = {4: 24, 6: 64}
OPERATOR_HOST = 1
OPERATOR_ADDRESS = address(Segment.PRIVATE.number, OPERATOR_HOST)
CLIENT_HOST = 200
ROUTER_HOST = 254
GATE_NEAR_HOST, GATE_FAR_HOST = 2, 1


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of an instance, on a segment."""

    interface: str
    segment: Segment
    host: int

    def address(self, version: int = 4) -> str:
        return address(self.segment.number, self.host, version)


@dataclass(frozen=True, slots=True)
class Route:
    """`advmss`: what is announced instead of what the interface carries, 0: that."""

    network: str
    gateway: str
    advmss: int = 0


@dataclass(frozen=True, slots=True)
class Instance:
    """One machine of the lab. `serves`: the address that clients of a load balancer use, by IP version."""

    name: str
    role: Role
    namespace: str
    links: tuple[Link, ...]
    serves: tuple[tuple[int, str], ...] = ()

    def address(self, interface: str, version: int = 4) -> str | None:
        return next((link.address(version) for link in self.links if link.interface == interface), None)

    @property
    def public(self) -> str | None:
        """None where it has no such interface."""
        return self.address("public")

    @property
    def private(self) -> str | None:
        return self.address("private")


def check_prefix(prefix: str) -> None:
    """Names of namespaces and folders begin with it, so it is a plain word. Raises ConfigError."""
    if not PREFIX_PATTERN.fullmatch(prefix):
        raise ConfigError(f"prefix {prefix!r}: write up to 21 of a-z, 0-9 and -, a letter first")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a lab is wired; the module's text says what each means. far_mtu 0: no far client."""

    ipv6: bool = False
    direct: bool = False
    one_arm: bool = False
    subnets: bool = False
    virtual: bool = False
    far_mtu: int = 0
    nodes_mtu: int = MTU

    @property
    def versions(self) -> tuple[int, ...]:
        return (4, 6) if self.ipv6 else (4,)

    @property
    def front(self) -> Segment:
        """Where load balancers and clients meet."""
        return Segment.PRIVATE if self.one_arm else Segment.PUBLIC

    def mtu(self, segment: Segment) -> int:
        return {Segment.MIDDLE: self.far_mtu or MTU, Segment.NODES: self.nodes_mtu}.get(segment, MTU)


@dataclass(frozen=True, slots=True)
class Topology:
    prefix: str = "gale"
    load_balancers: int = 3
    nodes: int = 3
    layout: Layout = Layout()

    def __post_init__(self) -> None:
        check_prefix(self.prefix)
        if not 1 <= self.load_balancers <= LOAD_BALANCERS_MAX:
            raise ConfigError(f"{self.load_balancers} load balancers: a lab has 1 to {LOAD_BALANCERS_MAX}")
        if not 1 <= self.nodes <= NODES_MAX:
            raise ConfigError(f"{self.nodes} nodes: a lab has 1 to {NODES_MAX}")

    @property
    def switch_namespace(self) -> str:
        return f"{self.prefix}-switch"

    def _instance(self, name: str, role: Role, *links: Link, serves: tuple[tuple[int, str], ...] = ()) -> Instance:
        return Instance(name, role, f"{self.prefix}-{name}", links, serves)

    @property
    def lbs(self) -> tuple[Instance, ...]:
        return tuple(self._lb(i) for i in range(self.load_balancers))

    def _lb(self, number: int) -> Instance:
        host, layout = 10 + number, self.layout
        sides = (Segment.PRIVATE,) if layout.one_arm else (Segment.PUBLIC, Segment.PRIVATE)
        net = VIRTUAL if layout.virtual else layout.front.number
        serves = tuple((version, address(net, host, version)) for version in layout.versions)
        links = [Link(side, side, host) for side in sides]
        return self._instance(f"lb-{number}", Role.LOAD_BALANCER, *links, serves=serves)

    @property
    def node_instances(self) -> tuple[Instance, ...]:
        layout = self.layout
        segments = {"private": Segment.NODES if layout.subnets else Segment.PRIVATE}
        if layout.direct and not layout.one_arm and not layout.subnets:
            segments = {"public": Segment.PUBLIC, **segments}
        return tuple(
            self._instance(f"node-{i}", Role.NODE, *(Link(name, on, 100 + i) for name, on in segments.items()))
            for i in range(self.nodes)
        )

    @property
    def client(self) -> Instance:
        return self._instance("client", Role.CLIENT, Link(self.layout.front, self.layout.front, CLIENT_HOST))

    @property
    def others(self) -> tuple[Instance, ...]:
        """Routers, and the client behind two of them."""
        layout, made = self.layout, []
        if layout.subnets:
            sides = dict.fromkeys((layout.front, Segment.PRIVATE, Segment.NODES))
            made.append(self._instance("router", Role.ROUTER, *(Link(side, side, ROUTER_HOST) for side in sides)))
        if layout.far_mtu:
            near = [Link(side, side, GATE_NEAR_HOST) for side in (layout.front, Segment.MIDDLE)]
            far = [Link(side, side, GATE_FAR_HOST) for side in (Segment.MIDDLE, Segment.FAR)]
            made.append(self._instance("gate-near", Role.ROUTER, *near))
            made.append(self._instance("gate-far", Role.ROUTER, *far))
            made.append(self._instance("far", Role.CLIENT, Link(Segment.FAR, Segment.FAR, CLIENT_HOST)))
        return tuple(made)

    @property
    def instances(self) -> tuple[Instance, ...]:
        return (*self.lbs, *self.node_instances, self.client, *self.others)

    @property
    def segments(self) -> tuple[Segment, ...]:
        used = {link.segment for instance in self.instances for link in instance.links}
        return tuple(segment for segment in Segment if segment in used)

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

    def routes(self, instance: Instance) -> Iterator[Route]:
        """What an instance must be told beside its own segments."""
        for version in self.layout.versions:
            yield from self._routes(instance, version)

    def _routes(self, instance: Instance, version: int) -> Iterator[Route]:
        layout, everywhere = self.layout, "0.0.0.0/0" if version == 4 else "::/0"
        front, nodes, middle = layout.front.number, Segment.NODES.number, Segment.MIDDLE.number
        near = instance.role in (Role.LOAD_BALANCER, Role.CLIENT, Role.ROUTER) or layout.direct
        match instance.name:
            case "far":
                yield Route(everywhere, address(Segment.FAR.number, GATE_FAR_HOST, version))
                return
            case "gate-far":
                yield Route(everywhere, address(middle, GATE_NEAR_HOST, version))
                return
            case "gate-near":
                yield Route(network(Segment.FAR.number, version), address(middle, GATE_FAR_HOST, version))
                near = False
        if layout.virtual and instance.name in ("client", "gate-near"):
            for lb in self.lbs:
                yield self.way_to(lb, lb, version)
        if layout.subnets and instance.role is Role.LOAD_BALANCER:
            yield Route(network(nodes, version), address(Segment.PRIVATE.number, ROUTER_HOST, version))
        if layout.subnets and instance.role is Role.NODE:
            headers = 40 if version == 4 else 60
            advmss = MTU - headers if layout.nodes_mtu != MTU else 0
            yield Route(everywhere, address(nodes, ROUTER_HOST, version), advmss)
        elif layout.far_mtu and near:
            yield Route(network(Segment.FAR.number, version), address(front, GATE_NEAR_HOST, version))

    def way_to(self, lb: Instance, through: Instance, version: int) -> Route:
        """How clients reach the address that `lb` serves, when it is virtual."""
        gateway = through.address(self.layout.front, version)
        return Route(f"{dict(lb.serves)[version]}/{32 if version == 4 else 128}", str(gateway))


def endpoint(lb: Instance, port: int = CLIENTS_PORT, version: int = 4) -> str:
    """What clients of a load balancer connect to."""
    served = dict(lb.serves)[version]
    return f"{served}:{port}" if version == 4 else f"[{served}]:{port}"


def api_server(lb: Instance) -> str:
    """Where gale-ctl asks a load balancer."""
    return f"{lb.private}:{API_PORT}"


def is_lab_namespace(prefix: str, namespace: str) -> bool:
    """Whether a namespace bears a name that only a lab of this prefix gives, whatever its size was."""
    names = r"lb-\d+|node-\d+|client|switch|router|far|gate-far|gate-near"
    return re.fullmatch(rf"{re.escape(prefix)}-({names})", namespace) is not None
