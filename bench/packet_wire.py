"""Through wires: 64-byte frames from one veth pair to another, everything on one core, beside a bare redirect.

    sender ── veth ──> gale_public, or bench_redirect ── veth ──> sink, which counts

Frames are made by the kernel (BPF_F_TEST_XDP_LIVE_FRAMES) and take the way of real ones, so what drivers and NAPI cost
is in the figures. A namespace of its own keeps everybody else away from the wires. Runs in a child, which enters it.
"""

import ctypes
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.packet_rig import (
    FAMILIES,
    PORT,
    SERVICES,
    SYN,
    THERE,
    End,
    Family,
    Rig,
    client,
    fast_frames,
    frame,
    run_repeatedly,
)
from gale.dataplane.attach import attach_xdp, detach_xdp

FLOWS = 1024
CLIENTS = [client(4, number) for number in range(FLOWS)]
WITHIN_S = 300
_CLONE_NEWNET = 0x40000000
_WIRES = {"sender": "clients", "nodes": "sink"}
FRAMES_FIRST = 20_000


def through_wires(rounds: int, packets: int, cpu: int) -> list[tuple[str, float, float, float]]:
    """For each mode: ns per packet, that of the bare redirect in the same rounds, and the spread of the difference."""
    command = ["taskset", "-c", str(cpu), sys.executable, "-m", "bench.packet_wire", str(rounds), str(packets)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=WITHIN_S, cwd=root)
    return [tuple(row) for row in json.loads(done.stdout)]


def measure(rounds: int, packets: int) -> Iterator[tuple[str, float, float, float]]:
    enter_namespace()
    for mode in ("l2", "l3", "l4"):
        yield mode, *_by_turns(wired_rig(mode), rounds, packets)


def enter_namespace() -> None:
    """A new one with two wires, for as long as this process lives."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    for here, there in _WIRES.items():
        _ip("link", "add", here, "type", "veth", "peer", "name", there)
    for name in [*_WIRES, *_WIRES.values(), "lo"]:
        _ip("link", "set", name, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def wired_rig(mode: str, family: Family = FAMILIES[0], clients: Sequence[End] = CLIENTS) -> Rig:
    """With flows of these clients that are open, ready to be sent, and the sink behind the other wire."""
    rig = Rig(mode, links=(socket.if_nametoindex("clients"), socket.if_nametoindex("nodes")))
    service = SERVICES[family.ip], PORT
    rig.put(THERE, fast_frames(family, clients, service))
    if mode == "l4":
        rig.run(
            "bench_public4", "gale_public", frame(family, clients[0], service, SYN), THERE, len(clients), len(clients)
        )
    rig.map["bench_wires"].update(0, socket.if_nametoindex("sender").to_bytes(4, sys.byteorder))
    rig.map["bench_wires"].update(1, socket.if_nametoindex("nodes").to_bytes(4, sys.byteorder))
    put_sink(rig)
    return rig


def put_sink(rig: Rig) -> None:
    """Its own, in the place of another rig's."""
    detach_xdp("sink", "bench_sink")
    attach_xdp("sink", rig.program.fds["bench_sink"], "bench_sink")


def _by_turns(rig: Rig, rounds: int, packets: int) -> tuple[float, float, float]:
    sent = frame(FAMILIES[0], CLIENTS[0], (SERVICES[4], PORT))
    took: dict[str, list[float]] = {"gale_public": [], "bench_redirect": []}
    for _ in range(rounds):
        for name, figures in took.items():
            attach_xdp("clients", rig.program.fds[name], name)
            send(rig, sent, FRAMES_FIRST)
            figures.append(send(rig, sent, packets))
            detach_xdp("clients", name)
    differences = [whole - floor for whole, floor in zip(*took.values(), strict=True)]
    first, _, third = statistics.quantiles(differences, n=4, method="inclusive")
    medians = [round(statistics.median(figures), 1) for figures in took.values()]
    return medians[0], medians[1], round(third - first, 1)


def send(rig: Rig, sent: bytes, packets: int) -> float:
    """Nanoseconds for each packet that arrived. Nearly all must: the wires are on one core, so nothing queues up."""
    rig.prepare(sent, 4, THERE, FLOWS)
    begin = time.perf_counter_ns()
    run_repeatedly(rig.program.fds["bench_send"], sent, packets, live=True)
    took = time.perf_counter_ns() - begin
    arrived = rig.sunk()
    if arrived < 0.99 * packets:
        raise SystemExit(f"{rig.mode}: {arrived} of {packets} frames arrived: {rig.counters()}")
    return took / arrived


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    print(json.dumps(list(measure(int(sys.argv[1]), int(sys.argv[2])))))
