"""Requests from clients and nodes that cost next to nothing, so that the forwarder is the limit.

wrk and a web server need as much of their core as a proxy needs of its own: on two cores what they ask for is about
what a proxy can do, and whoever does more is not seen. So here both ends of every connection are a program of a hundred
instructions at the TC hook (talk.c): a connection carries one small segment at a time, there and back. Only one who has
nodes answer through the forwarder can be asked like that, because an answer goes where its question came from.
"""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from bench.asking import Figures, moment
from bench.contestants import Asked
from bench.frames import checksum
from bench.stand import Stand
from gale.dataplane.attach import attach_filter, detach_filter
from gale.dataplane.program import Program, load_source
from gale.errors import HostError
from gale.lab import netns
from gale.lab.topology import NODE_HTTP_PORT, Instance

NAME = "bench_talk"
CONNECTIONS = 96
FIRST_PORT = 20_000
SYN, WINDOW, NO_OPTIONS = 0x02, 0xFFFF, 0x50
ANSWERED_WITHIN_S = 5.0
LOST_MOST = 0.02


def talk(stand: Stand, asked: Asked, seconds: int) -> Figures:
    """Raises HostError when connections cannot be opened."""
    with _ends(stand, asked) as (client, node):
        _open(stand, asked, client)
        asked_before, answered_before, before, began_s = _heard(node), _heard(client), moment(), time.monotonic()
        time.sleep(seconds)
        busy_s, took_s = moment().busy_s(before), time.monotonic() - began_s
        answered = _heard(client) - answered_before
        lost = _heard(node) - asked_before - answered
    if lost > LOST_MOST * max(1, answered):
        raise HostError(f"{asked.contestant}: {lost} of {answered + lost} requests have no answer: no figure")
    return {
        "requests": ("/s", answered / took_s),
        "mean latency": ("ms", 1000 * CONNECTIONS * took_s / max(1, answered)),
        "forwarder's CPU": ("µs per request", 1e6 * busy_s / max(1, answered)),
    }


def can_be_asked(contestant: str) -> bool:
    return contestant not in ("gale l2", "gale l3")


@contextmanager
def _ends(stand: Stand, asked: Asked) -> Iterator[tuple[Program, Program]]:
    """The client's and the nodes' programs, in their places. A client's frames have whole checksums in them anyway."""
    port = int(asked.web[0].rpartition(":")[2])
    client, node = _program("source", port), _program("dest", NODE_HTTP_PORT)
    with ExitStack() as stack:
        stack.enter_context(_filter(stand.client, "public", client))
        for instance in stand.nodes:
            stack.enter_context(_filter(instance, "private", node))
        stand.run(stand.client.name, ["ethtool", "-K", "public", "tx", "on"])
        stack.callback(stand.run, stand.client.name, ["ethtool", "-K", "public", "tx", "off"])
        yield client, node


def _program(ours: str, port: int) -> Program:
    text = Path(__file__).with_name("talk.c").read_bytes()
    return load_source(text, [f"-DOURS={ours}", f"-DPORT={socket.htons(port)}"], {NAME: "tc"})


@contextmanager
def _filter(instance: Instance, interface: str, program: Program) -> Iterator[None]:
    netns.inside(instance.namespace, partial(attach_filter, interface, program.fds[NAME], NAME))
    try:
        yield
    finally:
        netns.inside(instance.namespace, partial(detach_filter, interface, NAME))


def _open(stand: Stand, asked: Asked, client: Program) -> None:
    """And wait until they talk."""
    netns.inside(stand.client.namespace, partial(_send_syns, str(stand.client.public), asked.web))
    deadline = time.monotonic() + ANSWERED_WITHIN_S
    while _heard(client) < 10 * CONNECTIONS:
        if time.monotonic() > deadline:
            raise HostError(f"{asked.contestant}: connections that talk for themselves are not answered")
        time.sleep(0.02)


def _send_syns(source: str, targets: tuple[str, ...]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for number in range(CONNECTIONS):
            host, _, port = targets[number % len(targets)].rpartition(":")
            raw.sendto(syn(source, FIRST_PORT + number, host, int(port)), (host, 0))


def syn(source: str, source_port: int, host: str, port: int) -> bytes:
    """A TCP header that is right behind an IP header of these addresses."""
    header = struct.pack("!HHIIBBHHH", source_port, port, 0, 0, NO_OPTIONS, SYN, WINDOW, 0, 0)
    pseudo = ip_address(source).packed + ip_address(host).packed + struct.pack("!HH", socket.IPPROTO_TCP, len(header))
    return header[:16] + checksum(pseudo + header).to_bytes(2, "big") + header[18:]


def _heard(program: Program) -> int:
    return int(program.maps["bench_heard"].totals()[0][0])
