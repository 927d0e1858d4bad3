"""Who is measured, one after the other in the same namespaces: what each is turned on with, and where it is asked.

Each forwards the same two addresses, one for requests to all nodes and one for bulk to one of them, and each as well as
its documentation says it can:

- HAProxy and nginx: one thread on the forwarder's core, no logs, no limit that is reached; HAProxy splices when it sees
  that it pays, nginx has the buffers of its default.
- nftables: destination NAT only. Nodes' answers come back through the forwarder by a route, so no source is translated.
- none: the forwarder's kernel routes, and clients ask the nodes themselves.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.stand import FORWARDER, MODES, Stand, nginx_head, wait_listening
from gale.errors import HostError
from gale.lab import processes
from gale.lab.options import iperf_ports
from gale.lab.topology import NODE_HTTP_PORT

WEB_PORT, BULK_PORT = 8080, 5201
MOST_CONNECTIONS = 4_000
TABLE = "gale_bench"


@dataclass(frozen=True, slots=True)
class Asked:
    """Where clients find it: as many addresses for requests as clients are to take turns with, and one for bulk."""

    contestant: str
    web: tuple[str, ...]
    bulk: tuple[str, int]


Turn = AbstractContextManager[list[Asked]]


@contextmanager
def gale(stand: Stand) -> Iterator[list[Asked]]:
    """All three modes in one turn: one gale-lb, a service of each."""
    lab = stand.lab
    lab.start(FORWARDER)
    try:
        stand.bind()
        lab.wait_routing(within_s=30)
        stand.wire()
        yield [
            Asked(f"gale {mode}", (f"{stand.address}:{stand.port(mode)}",), (stand.address, stand.bulk_port(mode)))
            for mode in sorted(MODES)
        ]
    finally:
        detach_gale(stand)


def detach_gale(stand: Stand) -> None:
    """Nothing of it is left in the forwarder's namespace. To be done before the first turn: a lab comes with it."""
    stand.lab.stop(FORWARDER)
    command = [
        sys.executable,
        "-P",
        "-m",
        "gale.cli.lb",
        "--config",
        str(stand.lab.store.config(FORWARDER)),
        "--detach",
    ]
    done = stand.lab.run(FORWARDER, command)
    if done.returncode:
        raise HostError(f"gale-lb --detach: {done.stderr.strip()}")


@contextmanager
def haproxy(stand: Stand) -> Iterator[list[Asked]]:
    file = stand.lab.store.config("haproxy").with_suffix(".cfg")
    file.write_text(haproxy_text(stand))
    with _program(stand, ["haproxy", "-db", "-f", str(file)]):
        yield [_own(stand, "HAProxy")]


def haproxy_text(stand: Stand) -> str:
    nodes = "\n".join(f"    server {node.name} {node.private}:{NODE_HTTP_PORT}" for node in stand.nodes)
    return f"""\
global
    nbthread 1
    maxconn {MOST_CONNECTIONS}
defaults
    mode tcp
    balance roundrobin
    option splice-auto
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen web
    bind {stand.address}:{WEB_PORT} backlog 4096
{nodes}
listen bulk
    bind {stand.address}:{BULK_PORT}
    server {stand.bulk_node.name} {stand.bulk_node.private}:{_iperf_port(stand)}
"""


@contextmanager
def nginx(stand: Stand) -> Iterator[list[Asked]]:
    file = stand.lab.store.config("nginx").with_suffix(".conf")
    file.write_text(nginx_text(stand))
    with _program(stand, ["nginx", "-c", str(file)]):
        yield [_own(stand, "nginx")]


def nginx_text(stand: Stand) -> str:
    """The stream module is a file of its own, which the distribution's configuration would load."""
    nodes = " ".join(f"server {node.private}:{NODE_HTTP_PORT};" for node in stand.nodes)
    return (
        f"load_module {stream_module()}; {nginx_head(stand.lab, stand.forwarder)} stream {{"
        f" upstream web {{ {nodes} }} server {{ listen {stand.address}:{WEB_PORT} backlog=4096; proxy_pass web; }}"
        f" server {{ listen {stand.address}:{BULK_PORT};"
        f" proxy_pass {stand.bulk_node.private}:{_iperf_port(stand)}; }} }}\n"
    )


def stream_module() -> Path:
    return Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@contextmanager
def nftables(stand: Stand) -> Iterator[list[Asked]]:
    with _routing(stand):
        _nft(stand, nftables_text(stand))
        try:
            yield [_own(stand, "nftables")]
        finally:
            _nft(stand, f"delete table ip {TABLE}")


def nftables_text(stand: Stand) -> str:
    addresses = ", ".join(f"{number} : {node.private}" for number, node in enumerate(stand.nodes))
    web = f"numgen inc mod {len(stand.nodes)} map {{ {addresses} }} : {NODE_HTTP_PORT}"
    return f"""\
table ip {TABLE} {{
    chain there {{
        type nat hook prerouting priority dstnat;
        ip daddr {stand.address} tcp dport {WEB_PORT} dnat to {web}
        ip daddr {stand.address} tcp dport {BULK_PORT} dnat to {stand.bulk_node.private}:{_iperf_port(stand)}
    }}
}}
"""


@contextmanager
def none(stand: Stand) -> Iterator[list[Asked]]:
    with _routing(stand):
        web = tuple(f"{node.private}:{NODE_HTTP_PORT}" for node in stand.nodes)
        yield [Asked("none", web, (str(stand.bulk_node.private), _iperf_port(stand)))]


CONTESTANTS = {"gale": gale, "HAProxy": haproxy, "nginx": nginx, "nftables": nftables, "none": none}


def _own(stand: Stand, contestant: str) -> Asked:
    return Asked(contestant, (f"{stand.address}:{WEB_PORT}",), (stand.address, BULK_PORT))


def _iperf_port(stand: Stand) -> int:
    return iperf_ports(stand.options)["iperf-l4"]


@contextmanager
def _program(stand: Stand, command: Sequence[str]) -> Iterator[None]:
    """It runs in the forwarder's namespace, on the forwarder's core, until the turn is over."""
    started = processes.spawn(
        stand.forwarder.namespace, ["taskset", "-c", "1", *command], stand.lab.store.log(FORWARDER)
    )
    try:
        for port in (WEB_PORT, BULK_PORT):
            wait_listening(stand.lab, stand.forwarder, port, started)
        yield
    finally:
        processes.end([started], grace_s=2)


@contextmanager
def _routing(stand: Stand) -> Iterator[None]:
    """The forwarder's kernel routes between client and nodes, both ways."""
    way = [(stand.client, f"{node.private}/32", str(stand.forwarder.public)) for node in stand.nodes]
    way += [(node, f"{stand.client.public}/32", str(stand.forwarder.private)) for node in stand.nodes]
    stand.sysctl("net.ipv4.ip_forward=1")
    for instance, network, gateway in way:
        stand.run(instance.name, ["ip", "route", "replace", network, "via", gateway])
    try:
        yield
    finally:
        for instance, network, _ in way:
            stand.run(instance.name, ["ip", "route", "del", network])
        stand.sysctl("net.ipv4.ip_forward=0")


def _nft(stand: Stand, text: str) -> None:
    stand.run(FORWARDER, ["nft", "-f", "-"], text)


def versions() -> dict[str, str]:
    """Of all programs that are measured or measure."""
    asked = {
        "haproxy": ["haproxy", "-v"],
        "nginx": ["nginx", "-v"],
        "nftables": ["nft", "--version"],
        "wrk": ["wrk", "-v"],
        "iperf3": ["iperf3", "--version"],
    }
    found = {}
    for name, command in asked.items():
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        number = re.search(r"\d+\.\d+[\w.+~-]*", said.stdout + said.stderr)
        found[name] = number[0] if number else "unknown"
    return found
