"""Frames built from questions and taken apart again, held against Scapy, which knows packets by itself."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from gale.dataplane.frames import build, dissect
from gale.ports import Header, Question

V4, V6 = ("192.0.2.1", 40_000, "203.0.113.10", 443), ("2001:db8::1", 40_000, "2001:db8::10", 443)
MACS = bytes.fromhex("020000000001020000000002")


@pytest.mark.parametrize("ends", [V4, V6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("opening", [False, True])
def test_a_built_frame_is_what_scapy_would_build(ends: tuple[str, int, str, int], protocol: str, opening: bool) -> None:
    question = Question(*ends, protocol, opening)
    frame = build(question, MACS)
    network, transport = Ether(frame)[1], Ether(frame)[2]
    assert (network.src, transport.sport, network.dst, transport.dport) == ends
    assert isinstance(transport, TCP if protocol == "tcp" else UDP)
    assert protocol == "udp" or str(transport.flags) == ("S" if opening else "A")
    again = Ether(frame)
    for layer in again[1], again[2]:  # Scapy fills in what is missing: all checksums must come out as they were
        layer.fields.pop("chksum", None)
        layer.fields.pop("len", None)
        layer.fields.pop("plen", None)
    assert bytes(again) == frame


def names(headers: tuple[Header, ...]) -> list[str]:
    return [header.name for header in headers]


def test_tags_tunnels_and_both_versions_are_taken_apart() -> None:
    packet = (
        Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
        / Dot1Q(vlan=7)
        / IP(src="10.0.0.1", dst="10.0.0.2", ttl=63)
        / IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=9)
        / TCP(sport=1, dport=2, flags="SA")
    )
    assert dissect(bytes(packet)) == (
        Header("ethernet", {"source": "02:00:00:00:00:02", "destination": "02:00:00:00:00:01"}),
        Header("vlan", {"id": "7", "type": "0x8100"}),
        Header("ipv4", {"source": "10.0.0.1", "destination": "10.0.0.2", "ttl": "63"}),
        Header("ipv6", {"source": "2001:db8::1", "destination": "2001:db8::2", "hop_limit": "9"}),
        Header("tcp", {"source_port": "1", "destination_port": "2", "flags": "SYN ACK"}),
    )
    double = Ether(type=0x88A8) / Dot1Q(vlan=100) / Dot1Q(vlan=5) / IPv6(nh=4) / IP() / UDP(sport=3, dport=4)
    headers = dissect(bytes(double))
    assert names(headers) == ["ethernet", "vlan", "vlan", "ipv6", "ipv4", "udp"]
    assert [header.fields.get("id") for header in headers[1:3]] == ["100", "5"]


def test_errors_fragments_and_what_is_unknown() -> None:
    assert dissect(bytes(Ether() / IP() / ICMP(type=3, code=4)))[-1] == Header("icmp", {"type": "3", "code": "4"})
    assert names(dissect(bytes(Ether() / IPv6() / ICMPv6DestUnreach()))) == ["ethernet", "ipv6", "icmpv6"]
    first, later = Ether() / IP(flags="MF") / UDP(), Ether() / IP(frag=10, proto=17) / b"12345678"
    assert [header.fields.get("fragment") for header in dissect(bytes(first))] == [None, "0+", None]
    assert names(dissect(bytes(later))) == ["ethernet", "ipv4"]
    options = Ether() / IP(options=b"\x01\x01\x01\x00") / TCP(dport=99)
    assert dissect(bytes(options))[-1].fields["destination_port"] == "99"
    assert names(dissect(bytes(Ether() / ARP()))) == ["ethernet"]
    assert names(dissect(bytes(Ether() / IP(proto=47) / b"gre"))) == ["ethernet", "ipv4"]


def test_a_frame_that_is_cut_off_tells_what_is_whole() -> None:
    frame = build(Question(*V4))
    for size in range(len(frame) + 1):
        whole = (size >= 14) + (size >= 34) + (size >= 54)
        assert len(dissect(frame[:size])) == whole
