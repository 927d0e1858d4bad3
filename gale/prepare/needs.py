"""What a node must have, from what load balancers told it and from how the machine was found. Pure.

IPv4: the service's address is put on loopback. By itself Linux answers ARP for an address of any of its interfaces on
all of them, and would take the address away from the load balancers. So two settings hold for every interface, also
for those that come later: arp_ignore, no answer for an address of another interface; arp_announce, no question that
names the service's address as its sender, from which neighbours would learn it.

IPv6: neighbour discovery answers for addresses of the asked interface only, so an address on loopback is silent.

Reverse path filtering, when strict, drops packets whose sender is not reached by the interface they came by. Clients'
packets come by the load balancers' way, and their answers may leave by another: strict becomes loose there.

The largest segment (MSS) a service of mode l3 may announce is what the MTU towards the load balancers leaves after the
tunnel's header, the packet's own and TCP's.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

TCP = 20
IP = {4: 20, 6: 40}
"""Lengths of headers, without options."""

ALL = "net/ipv4/conf/all/"
ARP_IGNORE, ARP_ANNOUNCE, RP_FILTER = f"{ALL}arp_ignore", f"{ALL}arp_announce", f"{ALL}rp_filter"
IGNORES = frozenset({1, 2, 3, 8})  # no answer for what stands on loopback with scope host
NOT_FOR_OTHERS, BEST_SOURCE = 1, 2
STRICT, LOOSE = 1, 2

LOOPBACK = "lo"

SEGMENTS_MAX, LOAD_BALANCERS_MAX = 1024, 64
"""Capacities of the maps in bpf/decap.c."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A service as one load balancer listens for it. `tunnel`: IP version of the outer header, for mode l3."""

    name: str
    addresses: tuple[str, ...]
    mode: str
    tunnel: int = 4


@dataclass(frozen=True, slots=True)
class Told:
    """The last words of one load balancer: its services, and its own addresses, which tunnels come from."""

    offers: tuple[Offer, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def direct(self) -> tuple[Offer, ...]:
        """Those whose nodes answer clients directly; for others there is nothing to prepare."""
        return tuple(offer for offer in self.offers if offer.mode in ("l2", "l3"))


@dataclass(frozen=True, slots=True)
class Way:
    """How a load balancer is reached: the interface, this machine's address there, and, where the interface is a VLAN,
    the device below it, whose driver sees the frames first; its programs step over tags."""

    interface: str
    source: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine as it was found.

    loopback   it is up
    addresses  local address -> its interface
    silent     interfaces that are asked for no address by others, such as loopback
    towards    a load balancer's address -> the way there
    addresses6 interface -> its first IPv6 address that is good to be reached at
    exits      interfaces that packets to other machines may leave by
    mtus       interface -> bytes
    settings   sysctl, as a path below /proc/sys -> value
    clsact     interfaces with a qdisc for TC programs
    programs   (interface, name) of the programs of gale-node that are attached
    """

    loopback: bool = True
    addresses: Mapping[str, str] = field(default_factory=dict)
    silent: frozenset[str] = frozenset({"lo"})
    towards: Mapping[str, Way] = field(default_factory=dict)
    addresses6: Mapping[str, str] = field(default_factory=dict)
    exits: frozenset[str] = frozenset()
    mtus: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, int] = field(default_factory=dict)
    clsact: frozenset[str] = frozenset()
    programs: frozenset[tuple[str, str]] = frozenset()

    def address6(self) -> str:
        """The node's IPv6 address on the interface that leads to the load balancers; empty if there is none."""
        ways = sorted({way.interface for way in self.towards.values()})
        return next((self.addresses6[way] for way in ways if way in self.addresses6), "")

    def fits(self, setting: str, wanted: int) -> bool:
        """The setting works already as the wanted value would."""
        now = self.settings.get(setting, 0)
        if setting == ARP_IGNORE:
            return now in IGNORES
        if setting == ARP_ANNOUNCE:
            return now >= wanted
        return max(now, self.settings.get(RP_FILTER, 0)) != STRICT


@dataclass(frozen=True, slots=True)
class Needs:
    """
    settings        sysctl -> value that it must have, or one that does as well
    addresses       of services, on loopback
    tunnels         devices that tunnels arrive by
    exits           interfaces that answers of mode l3 may leave by
    load_balancers  addresses that tunnels come from
    own             addresses of this node that tunnels come to
    segments        service address of mode l3 -> largest segment
    hindrances      what stands in the way, one line each
    """

    settings: Mapping[str, int] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()
    tunnels: frozenset[str] = frozenset()
    exits: frozenset[str] = frozenset()
    load_balancers: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    segments: Mapping[str, int] = field(default_factory=dict)
    hindrances: tuple[str, ...] = ()


def needs(told: Collection[Told], host: Host, address6: str = "", peers: Collection[str] = ()) -> Needs:
    """What all of them need together. `peers`: addresses of load balancers beside those that told."""
    peers = frozenset(peers).union(address for each in told for address in each.addresses)
    offers = [offer for each in told for offer in each.direct]
    hindrances = _hindrances(told, offers, peers, host)
    addresses = frozenset(a for offer in offers for a in offer.addresses if not hindrance(offer, a, peers, host))
    if not addresses:
        return Needs(hindrances=hindrances)
    tunnelled = [offer for offer in offers if offer.mode == "l3"]
    senders = frozenset(a for each in told for a in each.addresses if any(o.mode == "l3" for o in each.direct))
    ways = [host.towards[peer] for peer in sorted(peers) if peer in host.towards]
    arrivals = [way for sender, way in host.towards.items() if sender in senders and way.interface != LOOPBACK]
    interfaces = frozenset(way.interface for way in arrivals)
    return Needs(
        settings=_settings(addresses, {way.interface for way in ways} - {LOOPBACK}),
        addresses=addresses,
        tunnels=frozenset(way.device or way.interface for way in arrivals),
        exits=(host.exits | interfaces) if tunnelled else frozenset(),
        load_balancers=senders,
        own=frozenset([way.source for way in arrivals] + ([address6] if address6 else [])) if arrivals else frozenset(),
        segments=_segments(tunnelled, addresses, min((host.mtus[name] for name in interfaces), default=0)),
        hindrances=hindrances,
    )


def hindrance(offer: Offer, address: str, peers: Collection[str], host: Host) -> str:
    """Why this machine cannot have this address of a service; empty if it can."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return f"service {offer.name}: {address!r} is no IP address"
    if parsed.is_multicast or parsed.is_unspecified or parsed.is_loopback or parsed.is_link_local:
        return f"service {offer.name}: {address} cannot be the address of a service"
    if address in peers:
        return (
            f"service {offer.name}: {address} is a load balancer's own address, which this node must reach: give the"
            " service another, in public_interface.virtual_addresses"
        )
    there = host.addresses.get(address)
    if there is not None and there not in host.silent:
        return f"service {offer.name}: {address} is on {there}, which answers for it: take it off there"
    return ""


def _hindrances(told: Iterable[Told], offers: Iterable[Offer], peers: Collection[str], host: Host) -> tuple[str, ...]:
    found = [hindrance(offer, address, peers, host) for offer in offers for address in offer.addresses]
    for each in told:
        if each.direct and not any(peer in host.towards for peer in each.addresses):
            found.append(f"no route to {' and '.join(each.addresses) or 'a load balancer that tells no address'}")
    if not host.loopback and any(each.direct for each in told):
        found.append(f"{LOOPBACK} is down: ip link set {LOOPBACK} up")
    if len(peers) > LOAD_BALANCERS_MAX:
        found.append(f"{len(peers)} addresses of load balancers: at most {LOAD_BALANCERS_MAX} are taken")
    if len({a for offer in offers for a in offer.addresses}) > SEGMENTS_MAX:
        found.append(f"more than {SEGMENTS_MAX} addresses of services")
    return tuple(dict.fromkeys(reason for reason in found if reason))


def _settings(addresses: Iterable[str], interfaces: Iterable[str]) -> dict[str, int]:
    if not any(ip_address(address).version == 4 for address in addresses):
        return {}
    loose = {f"net/ipv4/conf/{interface}/rp_filter": LOOSE for interface in sorted(interfaces)}
    return {ARP_IGNORE: NOT_FOR_OTHERS, ARP_ANNOUNCE: BEST_SOURCE, **loose}


def _segments(offers: Iterable[Offer], addresses: Collection[str], mtu: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for offer in offers:
        for address in offer.addresses:
            if address in addresses:
                size = max(0, mtu - IP[offer.tunnel] - IP[ip_address(address).version] - TCP)
                found[address] = min(size, found.get(address, size))
    return found
