"""Packets of very many clients at once, into the programs of a Balancer: a million take half a second."""

import socket
import struct
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from gale.dataplane.address import packed
from gale.dataplane.program import load_source
from gale.dataplane.testrun import run_program
from tests.packet.balancer import Balancer
from tests.packet.packets import NODE_A, SIX, SPORT, VIP, WEB, WEB_ON_NODES, Talk

ANYBODY = "0.0.0.0"


class Flood:
    """Clients have numbers: each stands for an address and a port by chance, always the same."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        words = {
            "ADDRESS": packed(VIP)[12:],
            **{f"ADDRESS6_{n}": packed(SIX[VIP])[4 * n : 4 * n + 4] for n in range(4)},
        }
        cflags = [f"-D{name}={int.from_bytes(word, sys.byteorder)}U" for name, word in words.items()]
        text = Path(__file__).with_suffix(".c").read_bytes()
        self._program = load_source(text, [*cflags, f"-DPORT={socket.htons(WEB)}"], {"gale_flood": "xdp"})
        self._program.maps["target"].update(0, balancer.program.public_fd)

    def send(self, talk: Talk, flags: str, clients: range, ack: int = 0, address: str = ANYBODY) -> Counter[str]:
        """One packet of each, and their verdicts. `address`: of all of them; the port is the number then."""
        self._program.maps["clients"].update(0, struct.pack("=I", clients.start) + packed(address)[12:])
        before = self._balancer.counters()
        frame = bytes(talk.from_client(flags, ack=ack, payload=bytes(20)))
        run_program(self._program.fds["gale_flood"], frame, repeat=len(clients))
        return Counter(self._balancer.counters()) - Counter(before)

    def answer(self, talk: Talk, nodes: Mapping[int, str]) -> None:
        """The node's first packet, to every flow there is. `nodes`: their addresses, by number."""
        assert self._balancer.program.private_fd is not None
        template = bytes(talk.from_node("SA"))
        mine = address(talk, NODE_A)
        frames = {number: bytearray(template.replace(mine, address(talk, node))) for number, node in nodes.items()}
        ports_at = template.index(struct.pack("!HH", WEB_ON_NODES, SPORT))
        for entry in self._balancer.returns.entries():
            struct.pack_into("!H", frames[entry.node], ports_at + 2, entry.source_port)
            run_program(self._balancer.program.private_fd, bytes(frames[entry.node]))


def address(talk: Talk, who: str) -> bytes:
    """As it is in a packet."""
    return packed(talk.address(who))[0 if talk.version == 6 else 12 :]
