"""64-byte frames through wires, all on one core: gale beside a bare redirect, the kernel's forwarding and nftables.

    sender ── veth ──> gale_public, or bench_redirect, or the kernel's own path ── veth ──> sink, which counts

Source, wires and sink are those of bench/packet_wire.py: the kernel makes the frames, and everything from there to the
sink is on one core and in the figure. They are UDP from one client and 1024 ports: only its ports change, so that the
header's checksum, which the kernel's path looks at, is right in all of them. UDP's own is not looked at: conntrack is
told not to, which is a gift to nftables.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.packet_rig import FAMILIES, MACS, NODES, PORT, SERVICES, Rig, client, frame, node_addresses
from bench.packet_wire import FLOWS, FRAMES_FIRST, enter_namespace, put_sink, send, wired_rig
from bench.stand import FORWARDER_CORE
from gale.dataplane.attach import attach_xdp, detach_xdp
from gale.errors import HostError

UDP = FAMILIES[1]
HOST, _ = client(4, 0)
CLIENTS = [(HOST, 1024 + number) for number in range(FLOWS)]
PACKETS, QUICK_PACKETS = 1_000_000, 200_000
WITHIN_S = 300
MODES = ("l2", "l3", "l4")
FORWARDER_MAC, NODE_MAC = MACS[6:], MACS[:6]
"""Alike in their first two bytes, which the source of frames does not write anew."""
HOP, NODES_NET = "10.9.2.2", "10.0.0.0/16"
TABLE = "gale_bench"


def frames(rounds: int, quick: bool) -> Iterator[tuple[str, float]]:
    """Contestant and millions of packets a second, round by round. Raises HostError."""
    packets = QUICK_PACKETS if quick else PACKETS
    command = [sys.executable, "-m", "bench.frames", str(rounds), str(packets)]
    root = Path(__file__).parent.parent
    pinned = ["taskset", "-c", str(FORWARDER_CORE), *command]
    done = subprocess.run(pinned, stdout=subprocess.PIPE, timeout=WITHIN_S, cwd=root, check=False)
    if done.returncode:
        raise HostError(f"{' '.join(command)}: exit code {done.returncode}, it says why above")
    yield from json.loads(done.stdout)


def measure(rounds: int, packets: int) -> Iterator[tuple[str, float]]:
    enter_namespace()
    rigs = {f"gale {mode}": wired_rig(mode, UDP, CLIENTS) for mode in MODES}
    _prepare_kernel()
    bare = rigs["gale l4"]
    for _ in range(rounds):
        for contestant, rig in rigs.items():
            yield contestant, _through_program(rig, "gale_public", packets)
        yield "bare redirect", _through_program(bare, "bench_redirect", packets)
        with _nftables():
            yield "nftables", _through_kernel(bare, packets)
        yield "none", _through_kernel(bare, packets)


def _through_program(rig: Rig, name: str, packets: int) -> float:
    attach_xdp("clients", rig.program.fds[name], name)
    try:
        return _through_kernel(rig, packets)
    finally:
        detach_xdp("clients", name)


def _through_kernel(rig: Rig, packets: int) -> float:
    """Millions a second."""
    put_sink(rig)
    sent = bytearray(frame(UDP, CLIENTS[0], (SERVICES[4], PORT)))
    sent[:12] = FORWARDER_MAC + NODE_MAC
    sent[24:26] = checksum(bytes(sent[14:34])).to_bytes(2, "big")
    send(rig, bytes(sent), FRAMES_FIRST)
    return 1000 / send(rig, bytes(sent), packets)


def checksum(header: bytes) -> int:
    """Of an IPv4 header whose own checksum is zero."""
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _prepare_kernel() -> None:
    """Its path leads from `clients` to `nodes`, as a router's whose next hop is the sink. NAPI is there with GRO."""
    for order in (
        f"ip link set clients address {FORWARDER_MAC.hex(':')}",
        "ip address add 10.9.1.1/24 dev clients",
        "ip address add 10.9.2.1/24 dev nodes",
        f"ip neighbour add {HOP} lladdr {NODE_MAC.hex(':')} dev nodes nud permanent",
        f"ip route add {SERVICES[4]}/32 via {HOP}",
        f"ip route add {NODES_NET} via {HOP}",
        "sysctl -qw net.ipv4.ip_forward=1",
        "ethtool -K clients gro on",
    ):
        _run(order)


@contextmanager
def _nftables() -> Iterator[None]:
    """Destination NAT to as many nodes as gale has."""
    nodes = ", ".join(f"{number} : {node_addresses(number + 1)[0]}" for number in range(NODES))
    rule = f"ip daddr {SERVICES[4]} udp dport {PORT} dnat to numgen inc mod {NODES} map {{ {nodes} }}"
    hook = "type nat hook prerouting priority dstnat;"
    with ExitStack() as stack:
        _run("nft -f -", f"table ip {TABLE} {{ chain there {{ {hook} {rule}\n}}\n}}")
        stack.callback(_run, f"nft delete table ip {TABLE}")
        _run("sysctl -qw net.netfilter.nf_conntrack_checksum=0")
        yield


def _run(order: str, said: str = "") -> None:
    subprocess.run(order.split(), input=said.encode(), check=True)


if __name__ == "__main__":
    print(json.dumps(list(measure(int(sys.argv[1]), int(sys.argv[2])))))
