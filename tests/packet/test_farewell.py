"""What is sent to clients whose node is gone, byte by byte; and flows that are removed."""

import socket
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from gale.dataplane.address import packed
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.farewell import Destination, forget, reminder
from gale.dataplane.program import Program, load
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.dataplane.words import WORD, flags

CLIENT_MAC, OWN_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
CLIENT, CLIENT6, SERVICE, SERVICE6 = "198.51.100.7", "2001:db8:1::7", "192.0.2.80", "2001:db8::80"
PORT, SERVICE_PORT, FIRST = 40_000, 80, 1_000_000
SETTINGS = DataplaneSettings("lo", "lo", "10.0.0.1", None, (Listener("web", SERVICE, 80, "tcp", 80),), 64, 1 << 15)
USED_SHIFT = 40


@pytest.fixture(scope="module")
def program(bpf: None) -> Program:
    return load(SETTINGS)


def entry(returns: BpfMap, client: str, tags: int = 0, vlan: tuple[int, ...] = (), isn: int = FIRST) -> bytes:
    path = returns.Leaf()
    path.client.bytes[:] = packed(client)
    path.client_port = socket.htons(PORT)
    path.isn = socket.htonl(isn)
    path.macs[:] = bytes.fromhex((CLIENT_MAC + OWN_MAC).replace(":", ""))
    path.tags = tags
    for index, control in enumerate(vlan):
        path.vlan[index] = socket.htons(control)
    return bytes(path)


def segment(sequence: int = FIRST - 1) -> Packet:
    return TCP(sport=SERVICE_PORT, dport=PORT, flags="A", seq=sequence, ack=0, window=0xFFFF)


ETHERNET = Ether(dst=CLIENT_MAC, src=OWN_MAC)
FOUR = IP(src=SERVICE, dst=CLIENT, id=0, flags="DF")


@pytest.mark.parametrize(
    ("fields", "service", "frame"),
    [
        ({"client": CLIENT}, SERVICE, ETHERNET / FOUR / segment()),
        ({"client": CLIENT6}, SERVICE6, ETHERNET / IPv6(src=SERVICE6, dst=CLIENT6, hlim=64) / segment()),
        (
            {"client": CLIENT, "tags": 1, "vlan": (0x6007,)},
            SERVICE,
            ETHERNET / Dot1Q(vlan=7, prio=3) / FOUR / segment(),
        ),
        (
            {"client": CLIENT, "tags": 2 | 4, "vlan": (8, 7)},
            SERVICE,
            ETHERNET / Dot1AD(vlan=8) / Dot1Q(vlan=7) / FOUR / segment(),
        ),
        ({"client": CLIENT, "isn": 0}, SERVICE, ETHERNET / FOUR / segment(0xFFFFFFFF)),
    ],
    ids=["IPv4", "IPv6", "VLAN", "two VLANs", "before zero"],
)
def test_the_reminder(program: Program, fields: dict[str, Any], service: str, frame: Packet) -> None:
    returns = program.maps["returns"]
    sent = reminder(entry(returns, **fields), returns, Destination(packed(service), SERVICE_PORT))
    assert sent == bytes(frame)


def test_flows_of_listeners_that_are_gone_are_removed_and_no_others(program: Program) -> None:
    tables = [program.maps[name] for name in ("flows", "returns")]
    used, last = flags()["used"] << USED_SHIFT, min(table.max_entries for table in tables) - 1
    places = {3: 5, 4: 6, last: 5}
    for table in tables:
        for place, listener in places.items():
            table[place] = table.Leaf(listener=listener, word=used | 9)
    assert forget(tables, {5, 8}) == 4
    for table in tables:
        assert [bool(table[place].word & used) for place in places] == [False, True, False]
        assert table[3].word == 1 << 6 * WORD, "readers must notice"
    assert forget(tables, {5, 8}) == 0
