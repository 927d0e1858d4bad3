"""gale-lb put together: which parts there are, in which order they start, and in which they stop.

The order is chosen so that nothing is promised before it can be kept: what this machine lacks is found first, ports are
taken next, the BPF programs are compiled then, because that stalls the loop for most of a second, and Raft is joined
last. On the way out the programs stay attached: the kernel goes on forwarding without us.
"""

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace

import structlog

import gale
from gale.clock import SystemClock
from gale.collector import calm_the_collector
from gale.config import EffectiveConfig, LbConfig
from gale.config.reloading import reload_lb
from gale.controller import Controller
from gale.core.commands import Announce
from gale.core.hello import Hello
from gale.core.shared import SLOTS, Service
from gale.core.state import Phase
from gale.dataplane.adapter import BpfDataplane
from gale.dataplane.hold import holding
from gale.dataplane.links import interface_addresses
from gale.dataplane.quick_neighbours import put_back, quick_neighbours
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.dataplane.takeover import remove as take_off
from gale.errors import ConfigError, HostError
from gale.log import Refusals
from gale.machine import machine
from gale.raft.consensus import RaftConsensus
from gale.raft.disk import Disk
from gale.raft.tcp import TcpStreams
from gale.reload import reread
from gale.rpc.api_service import ManagementService
from gale.rpc.limits import API_LIMITS, NODE_LIMITS, Limits
from gale.rpc.log_codec import LogCodec
from gale.rpc.node_service import NodeService
from gale.rpc.server import listen, listen_here
from gale.rpc.v1.api_pb2_grpc import add_ManagementServiceServicer_to_server
from gale.rpc.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from gale.supervisor import Standing, Supervisor
from gale.tls import Role, credentials
from gale.web.serving import doors, open_doors, places
from gale.web.site import Site

log = structlog.get_logger()


async def run(config: LbConfig, read: Callable[[], LbConfig], supervisor: Supervisor) -> None:
    """Run a load balancer until SIGTERM or SIGINT. `read`: the configuration anew, at SIGHUP. Raises GaleError for what
    stands in the way."""
    for warning in config.warnings:
        log.warning(warning)
    files = raise_open_files()
    private, public = interface_addresses(config.private_interface), interface_addresses(config.public_interface)
    address = own_address(config.quorum, private, config.private_interface)
    ip, ip6 = address.rpartition(":")[0], next(iter(interface_addresses(config.private_interface, 6)), None)
    own = credentials(config.tls, Role.LOAD_BALANCER, [ip])
    with (
        holding(config.public_interface, config.private_interface),
        quick_neighbours(config.private_interface),
    ):
        async with AsyncExitStack() as stack:
            checks_at, api_at = (
                [f"{ip}:{config.node_port}"],
                [f"{ip}:{config.api_port}", f"127.0.0.1:{config.api_port}"],
            )
            require_free(checks_at, "private_interface.node_port")
            require_free(api_at, "private_interface.api_port")
            require_free([address], "load_balancer_quorum.addresses")
            refused = {port: Refusals(f"{port} connection refused") for port in ("raft", "checks", "api", "web")}
            nodes = await listen(checks_at, within(NODE_LIMITS, files // 2), own, refused["checks"])
            api = await listen(api_at, within(API_LIMITS, files // 8), own, refused["api"])
            apis = [api, *await listen_here(config.api_socket, within(API_LIMITS, files // 8), refused["api"])]
            web = list(doors(places(config.web_address, ip), config.web_port, refused["web"], own))
            for door in web:
                stack.callback(door.close)
            settings = DataplaneSettings(
                public_interface=config.public_interface,
                private_interface=config.private_interface,
                source_address=ip,
                source_address6=ip6,
                listeners=listeners(config.shared.services, public, config.public_interface),
                slots=SLOTS,
                flows=config.flows,
                learning_s=config.learning_s,
            )
            dataplane = BpfDataplane(settings)
            stack.callback(dataplane.close)
            clock, members = SystemClock(), tuple(sorted(config.quorum))
            hello = Hello(address, members, config.shared, config.enforces)
            streams = TcpStreams(address, config.quorum, refused["raft"], own)
            stack.callback(streams.close)
            consensus = RaftConsensus(hello, Disk(config.state_directory), LogCodec(), streams, clock, refused["raft"])
            stack.push_async_callback(consensus.stop)
            me = Announce(
                time_ms=0,
                load_balancer=address,
                api=f"{ip}:{config.api_port}",
                version=gale.__version__,
                shared=config.shared,
                enforces=config.enforces,
                leads=False,
                members=members,
            )
            controller = Controller(me, consensus, dataplane, clock)
            add_NodeServiceServicer_to_server(
                NodeService(address, controller, dataplane.listeners, [ip, *filter(None, [ip6])]), nodes
            )
            management = ManagementService(
                controller, config.quorum, config.api_port, own, lambda: what_is_in_force(config, settings.listeners)
            )
            for server in apis:
                add_ManagementServiceServicer_to_server(management, server)
            for server in (nodes, *apis):
                await server.start()
                stack.push_async_callback(server.stop, 0.2)
            open_doors(web, Site(controller, refused, own).answer)
            await consensus.start(changed=controller.wake)
            calm_the_collector()
            if config.tls is None:
                log.warning(
                    "no [tls]: whoever reaches the private network can pose as a load balancer, a node or an operator,"
                    " and read what they say; gale-ctl tls init makes certificates"
                )
            log.info("gale-lb is up", version=gale.__version__, address=address, config_hash=config.shared.hash)

            def reload() -> None:
                nonlocal config
                before, config = config, reread(config, read, reload_lb, supervisor)
                if config is not before:
                    controller.announce(replace(me, shared=config.shared, enforces=config.enforces))
                    consensus.introduce(replace(hello, shared=config.shared, enforces=config.enforces))

            await until_told_to_stop(controller, reload, supervisor)
            supervisor.stopping("hands leadership over; its programs go on forwarding")
    log.info("gale-lb stops; its programs stay attached and go on forwarding (gale-lb --detach removes them)")


def what_is_in_force(config: LbConfig, listeners: Iterable[Listener]) -> EffectiveConfig:
    """What is in force here, for those who ask."""
    serves: dict[str, tuple[str, ...]] = {}
    for each in listeners:
        address = f"[{each.address}]" if ":" in each.address else each.address
        serves[each.service] = (*serves.get(each.service, ()), f"{address}:{each.port}/{each.protocol}")
    shared = config.shared
    return EffectiveConfig(dict(shared.canonical()), shared.hash, config.own, config.warnings, serves, machine())


def raise_open_files() -> int:
    """Every connection is an open file, and the usual limit of 1024 is fewer than there may be nodes. Gives the new."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def within(limits: Limits, files: int) -> Limits:
    """The limits with so many connections at most: strangers on one port leave files for the others and the disk."""
    return replace(limits, connections=min(limits.connections, files))


def remove(config: LbConfig) -> None:
    """Leave this machine as it was before gale-lb: programs, maps and settings of its interfaces."""
    with holding(config.public_interface, config.private_interface):
        take_off(config.public_interface, config.private_interface)
        put_back(config.private_interface)


async def until_told_to_stop(controller: Controller, reload: Callable[[], None], supervisor: Supervisor) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    stopping = asyncio.create_task(stop.wait())
    for_ever = (
        asyncio.create_task(controller.run()),
        asyncio.create_task(supervisor.report(controller.stepped, lambda: standing(controller))),
    )
    try:
        done, _ = await asyncio.wait((stopping, *for_ever), return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()  # these end only by failing
    finally:
        for task in (stopping, *for_ever):
            task.cancel()


def standing(controller: Controller) -> Standing:
    """For `systemctl status`: ready once it forwards, for whatever it then lacks it goes on forwarding."""
    status, nodes = controller.local_status(), controller.state.nodes.values()
    if not controller.forwards:
        waits = "learns what was committed" if status.consensus.quorum else "waits for a majority of the load balancers"
        return Standing(False, f"starting: {waits}")
    routing = f"{sum(1 for node in nodes if node.phase is Phase.ROUTING)} of {len(nodes)} nodes route"
    leader = f"leader {status.consensus.leader}" if status.consensus.quorum else "NO QUORUM: nothing is decided"
    return Standing(True, f"forwarding; {routing}; {leader}")


def own_address(quorum: Iterable[str], addresses: Iterable[str], interface: str) -> str:
    """The quorum entry that is this machine: the one whose IP is on the private interface."""
    own = [entry for entry in quorum if entry.rpartition(":")[0] in addresses]
    if len(own) == 1:
        return own[0]
    has = ", ".join(addresses) or "no IPv4 address"
    if own:
        raise ConfigError(
            f"load_balancer_quorum.addresses: {' and '.join(own)} are both this machine: list each load balancer once"
        )
    raise ConfigError(
        f"load_balancer_quorum.addresses: none of {', '.join(quorum)} is on {interface}, which has {has}:"
        " list this load balancer too, by its private address"
    )


def require_free(addresses: Iterable[str], key: str) -> None:
    """Raise HostError, naming the configuration's key, when "IP:PORT" cannot be listened on."""
    for address in addresses:
        ip, _, port = address.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, int(port)))
            except OSError as error:
                raise HostError(f"{key}: cannot listen on {address}: {error.strerror}: what else uses it?") from error


def listeners(services: Iterable[Service], own: tuple[str, ...], interface: str) -> tuple[Listener, ...]:
    """What the kernel must listen for: every service on every address it has here, and on every protocol."""
    found = tuple(
        Listener(service.name, address, service.port, protocol, service.target_port, service.mode, tunnel(service))
        for service in services
        for address in service.addresses or own
        for protocol in service.protocols
    )
    if missing := {service.name for service in services} - {listener.service for listener in found}:
        raise HostError(
            f"{interface} has no IPv4 address for service {', '.join(sorted(missing))}:"
            " give it one, or set public_interface.virtual_addresses"
        )
    return found


def tunnel(service: Service) -> int:
    """The IP version of its tunnels' outer header (l3)."""
    return 6 if service.tunnel == "ipv6" else 4
