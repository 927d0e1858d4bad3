"""What gale-node changes on a machine, with real packets: two namespaces and a cable.

outside: a load balancer     eth0 ──── eth0     node
         10.0.0.2, fd00::2                      10.0.0.11, fd00::11
"""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from gale.dataplane.attach import attach_xdp
from gale.dataplane.program import load_source
from gale.errors import HostError
from gale.prepare.memory import Memory, alone
from gale.prepare.needs import ARP_ANNOUNCE, ARP_IGNORE, Offer, Told
from gale.prepare.perform import Workshop
from gale.prepare.plan import Change
from gale.prepare.preparation import Outcome, Preparer
from tests.packet import needs
from tests.packet.machine import CLIENT, CLIENT6, LB, LB6, MAC_CLIENT, NODE, NODE6, STRANGER, WAIT_S, Net, machine
from tests.packet.network import namespace

VIP, VIP6, PORT = "10.0.0.80", "fd00::80", 20080
NAME = "10.0.0.2:7070"
NATIVE, GENERIC = 1, 2  # as `ip link` numbers them
BROADCAST = "ff:ff:ff:ff:ff:ff"

pytestmark = needs.NAMESPACES


@pytest.fixture
def net() -> Iterator[Net]:
    with machine() as net:
        yield net


def told(*offers: Offer) -> dict[str, Told]:
    return {NAME: Told(offers, (LB, LB6))}


L2 = told(Offer("web", (VIP, VIP6), "l2"))
L3 = told(Offer("web", (VIP, VIP6), "l3"))


def preparer(net: Net, folder: Path, load_balancers: int = 1) -> Preparer:
    with namespace(net.node):
        return Preparer(Memory(folder), load_balancers)


def prepare(net: Net, one: Preparer, what: dict[str, Told]) -> Outcome:
    with namespace(net.node):
        return one.bring_about(what)


def undo(net: Net, one: Preparer) -> bool:
    with namespace(net.node):
        return one.undo()


def answered(net: Net, question: Packet, address: str) -> bool:
    """Asks for the address, then for the node's own, whose answer comes after any other."""
    own = NODE6 if ":" in address else NODE
    with net.wire() as wire:
        for target in (address, own):
            wire.send(bytes(about(question.copy(), target)))
        while True:
            said = Ether(wire.recv(2048))
            who = said[ARP].psrc if ARP in said and said[ARP].op == 2 else None
            who = said[ICMPv6ND_NA].tgt if ICMPv6ND_NA in said else who
            if who in (address, own):
                return bool(who == address)


def about(question: Packet, target: str) -> Packet:
    if ARP in question:
        question[ARP].pdst = target
    else:
        question[ICMPv6ND_NS].tgt = target
        group = socket.inet_ntop(socket.AF_INET6, bytes.fromhex("ff0200000000000000000001ff") + ip(target)[-3:])
        question[IPv6].dst = group
        question[Ether].dst = "33:33:" + ":".join(f"{byte:02x}" for byte in ip(group)[-4:])
    return question


def ip(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def who_has(net: Net, sender: str) -> Packet:
    if ":" not in sender:
        return Ether(dst=BROADCAST, src=net.mac_outside) / ARP(hwsrc=net.mac_outside, psrc=sender)
    source = ICMPv6NDOptSrcLLAddr(lladdr=net.mac_outside)
    return Ether(src=net.mac_outside) / IPv6(src=sender, hlim=255) / ICMPv6ND_NS() / source


@pytest.mark.parametrize(("address", "sender"), [(VIP, LB), (VIP6, LB6)])
def test_nobody_is_answered_for_the_services_address(net: Net, tmp_path: Path, address: str, sender: str) -> None:
    prepare(net, preparer(net, tmp_path), L2)
    assert address in net.inside("ip", "address", "show", "lo")
    assert not answered(net, who_has(net, sender), address)


def test_without_the_settings_it_would_be_answered(net: Net) -> None:
    """So the test above can fail."""
    net.inside("ip", "address", "add", f"{VIP}/32", "dev", "lo")
    assert answered(net, who_has(net, LB), VIP)


def test_no_question_names_the_services_address(net: Net, tmp_path: Path) -> None:
    """A neighbour would learn from it that the address lives here."""
    prepare(net, preparer(net, tmp_path), L2)
    with net.wire() as wire, namespace(net.node), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind((VIP, PORT))
        service.sendto(b"x", (STRANGER, PORT))
        while True:
            said = Ether(wire.recv(2048))
            if ARP in said and said[ARP].pdst == STRANGER:
                assert said[ARP].psrc == NODE
                return


def test_nothing_else_is_sent_from_the_services_address(net: Net, tmp_path: Path) -> None:
    prepare(net, preparer(net, tmp_path), L2)
    with namespace(net.node):
        for family, target, own in ((socket.AF_INET, LB, NODE), (socket.AF_INET6, LB6, NODE6)):
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, PORT))
                assert probe.getsockname()[0] == own
        net.inside("ip", "address", "del", f"{NODE6}/64", "dev", "eth0")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe, pytest.raises(OSError, match="unreachable"):
            probe.connect((LB6, PORT))


@contextmanager
def service(net: Net, address: str) -> Iterator[socket.socket]:
    with namespace(net.node):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.create_server((address, PORT), family=family)
    listening.settimeout(WAIT_S)
    with listening:
        yield listening


def answer(wire: socket.socket, port: int) -> Packet:
    """The next TCP segment from the service to this port."""
    while True:
        said = Ether(wire.recv(2048))
        if TCP in said and (said[TCP].sport, said[TCP].dport) == (PORT, port):
            return said


def outer(version: int, source: str = "") -> Packet:
    return IP(src=source or LB, dst=NODE, flags="DF") if version == 4 else IPv6(src=source or LB6, dst=NODE6)


def inner(version: int) -> Packet:
    return IP(src=CLIENT, dst=VIP) if version == 4 else IPv6(src=CLIENT6, dst=VIP6)


@pytest.mark.parametrize(("outside", "inside", "segment"), [(4, 4, 1440), (4, 6, 1420), (6, 4, 1420), (6, 6, 1400)])
def test_a_tunnel_reaches_a_server(net: Net, tmp_path: Path, outside: int, inside: int, segment: int) -> None:
    outcome = prepare(net, preparer(net, tmp_path), told(Offer("web", (VIP, VIP6), "l3", outside)))
    assert outcome.reasons == {NAME: ""}
    frame = Ether(dst=net.mac, src=net.mac_outside) / outer(outside) / inner(inside)
    with service(net, VIP if inside == 4 else VIP6) as listening, net.wire() as wire:
        port = 30001 + 10 * outside + inside
        wire.send(bytes(frame / TCP(sport=port, dport=PORT, flags="S", seq=1000, options=[("MSS", 1460)])))
        syn_ack = answer(wire, port)
        assert syn_ack[Ether].dst == MAC_CLIENT
        assert syn_ack.sprintf("%TCP.flags%") == "SA"
        assert dict(syn_ack[TCP].options)["MSS"] == segment
        assert checksum_holds(syn_ack)
        going_on = TCP(sport=port, dport=PORT, flags="PA", seq=1001, ack=syn_ack[TCP].seq + 1)
        wire.send(bytes(frame / going_on / b"hello"))
        served, (peer, *_) = listening.accept()
        with served:
            served.settimeout(WAIT_S)
            assert served.recv(100) == b"hello"
            assert peer == (CLIENT if inside == 4 else CLIENT6)


def checksum_holds(frame: Packet) -> bool:
    """The wire's copy has the full checksum: the node's offload is off."""
    again = frame.copy()
    del again[TCP].chksum
    return bool(Ether(bytes(again))[TCP].chksum == frame[TCP].chksum)


def reaches(net: Net, way_in: Packet, tags: int = 0) -> int:
    """A SYN in a tunnel; gives the largest segment of the answer, whose frame has this many VLAN tags."""
    with service(net, VIP), net.wire() as wire:
        wire.send(bytes(way_in / outer(4) / inner(4) / TCP(sport=30001, dport=PORT, flags="S")))
        said = answer(wire, 30001)
        assert said.haslayer(Dot1Q) == tags
        return int(dict(said[TCP].options)["MSS"])


def test_where_the_driver_refuses_it_goes_generic(net: Net, tmp_path: Path) -> None:
    """A bridge has no XDP of its own."""
    net.inside("ip", "link", "add", "bridge", "type", "bridge")
    net.inside("ip", "link", "set", "eth0", "master", "bridge")
    net.move_to("bridge")
    mac = json.loads(net.inside("ip", "-j", "link", "show", "bridge"))[0]["address"]
    before = net.machine()
    one = preparer(net, tmp_path)
    assert prepare(net, one, L3).reasons == {NAME: ""}
    assert dict(net.programs())["bridge"] == GENERIC
    assert reaches(net, Ether(dst=mac, src=net.mac_outside)) == 1440
    assert undo(net, one)
    assert net.machine() == before


def test_a_vlans_frames_are_seen_by_the_device_below(net: Net, tmp_path: Path) -> None:
    try:
        net.inside("ip", "link", "add", "link", "eth0", "name", "eth0.7", "type", "vlan", "id", "7")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs VLAN devices: {error.stderr.strip()}")
    net.inside("ip", "link", "set", "eth0.7", "mtu", "1400")
    net.move_to("eth0.7")
    before = net.machine()
    one = preparer(net, tmp_path)
    assert prepare(net, one, L3) == Outcome({NAME: ""}, NODE6)
    assert dict(net.programs()) == {"lo": None, "eth0": NATIVE, "eth0.7": None}
    assert reaches(net, Ether(dst=net.mac, src=net.mac_outside) / Dot1Q(vlan=7), tags=1) == 1340
    assert undo(net, one)
    assert net.machine() == before


def test_only_load_balancers_may_tunnel(net: Net, tmp_path: Path) -> None:
    one = preparer(net, tmp_path)
    assert one.counted() == {}
    prepare(net, one, L3)
    with service(net, VIP), net.wire() as wire:
        for port, source in ((30001, STRANGER), (30002, LB)):
            syn = inner(4) / TCP(sport=port, dport=PORT, flags="S")
            wire.send(bytes(Ether(dst=net.mac, src=net.mac_outside) / outer(4, source) / syn))
        assert answer_of_either(wire, 30001, 30002) == 30002
    counted = {verdict: packets for (verdict, _), packets in one.counted().items() if packets}
    assert counted.pop("clamped") >= 1  # the service sends its SYN/ACK again
    assert counted == {"decapsulated": 1, "not_a_load_balancer": 1}


def answer_of_either(wire: socket.socket, *ports: int) -> int:
    while True:
        said = Ether(wire.recv(2048))
        if TCP in said and said[TCP].sport == PORT and said[TCP].dport in ports:
            return int(said[TCP].dport)


def test_strict_reverse_path_filtering_is_loosened(net: Net, tmp_path: Path) -> None:
    """The way back to the client is another interface than that of the load balancers."""
    net.inside("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    net.inside("ip", "link", "set", "eth1", "up")
    net.inside("ip", "link", "set", "eth2", "up")
    net.inside("ip", "route", "add", "198.51.100.0/24", "dev", "eth1")
    net.inside("sysctl", "-w", "net.ipv4.conf.eth0.rp_filter=1")
    before = net.machine()
    one = preparer(net, tmp_path)
    prepare(net, one, L2)
    with namespace(net.node), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, net.wire() as wire:
        udp.settimeout(WAIT_S)
        udp.bind((VIP, PORT))
        wire.send(bytes(Ether(dst=net.mac) / IP(src="198.51.100.7", dst=VIP) / UDP(sport=1, dport=PORT) / b"hello"))
        assert udp.recvfrom(100) == (b"hello", ("198.51.100.7", 1))
    assert undo(net, one)
    assert net.machine() == before


@pytest.mark.parametrize("what", [L2, L3])
def test_everything_is_put_back(net: Net, tmp_path: Path, what: dict[str, Told]) -> None:
    before = net.machine()
    one = preparer(net, tmp_path)
    assert prepare(net, one, what) == Outcome({NAME: ""}, NODE6)
    assert net.machine() != before
    assert undo(net, one)
    assert net.machine() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", [L2, L3])
def test_what_was_there_before_stays(net: Net, tmp_path: Path, what: dict[str, Told]) -> None:
    net.inside("ip", "address", "add", f"{VIP}/32", "dev", "lo")
    net.inside("sysctl", "-w", "net.ipv4.conf.all.arp_ignore=2", "net.ipv4.conf.all.arp_announce=1")
    net.inside("tc", "qdisc", "add", "dev", "eth0", "clsact")
    net.inside("tc", "filter", "add", "dev", "eth0", "egress", "prio", "9", "bpf", "bytecode", "1,6 0 0 0,")
    before = net.machine()
    one = preparer(net, tmp_path)
    assert prepare(net, one, what).reasons == {NAME: ""}
    assert undo(net, one)
    assert net.machine() == before


def test_an_empty_qdisc_of_somebody_else_stays(net: Net, tmp_path: Path) -> None:
    net.inside("tc", "qdisc", "add", "dev", "eth0", "clsact")
    before = net.machine()
    one = preparer(net, tmp_path)
    prepare(net, one, L3)
    assert undo(net, one)
    assert net.machine() == before


@pytest.mark.parametrize("what", [L2, L3])
def test_a_successor_knows_what_was_there(net: Net, tmp_path: Path, what: dict[str, Told]) -> None:
    before = net.machine()
    prepare(net, preparer(net, tmp_path), what)
    prepared = net.machine()
    second = preparer(net, tmp_path)
    assert prepare(net, second, what).reasons == {NAME: ""}
    assert net.machine() == prepared, "everything holds already"
    assert undo(net, second)
    assert net.machine() == before


class Killed(BaseException):
    """As by kill -9: nothing is cleaned up."""


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", range(6))
def test_killed_at_any_change_it_can_be_undone(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, done: bool
) -> None:
    """Before or after the change itself: memory is written before."""
    before, make, made = net.machine(), Workshop.make, 0

    def or_die(self: Workshop, change: Change, again: bool) -> None:
        nonlocal made
        if made == at and not done:
            raise Killed
        make(self, change, again)
        if made == at:
            raise Killed
        made += 1

    monkeypatch.setattr(Workshop, "make", or_die)
    with pytest.raises(Killed):
        prepare(net, preparer(net, tmp_path), L3)
    assert undo(net, preparer(net, tmp_path))
    assert net.machine() == before
    assert list(tmp_path.iterdir()) == []


def test_a_successor_waits_for_all_load_balancers_before_it_takes_anything_back(net: Net, tmp_path: Path) -> None:
    prepare(net, preparer(net, tmp_path), L3)
    prepared = net.machine()
    second = preparer(net, tmp_path, load_balancers=2)
    prepare(net, second, {"10.0.0.3:7070": Told((), ("10.0.0.3",))})
    assert net.machine() == prepared
    prepare(net, second, {"10.0.0.3:7070": Told((), ("10.0.0.3",)), NAME: Told((), (LB,))})
    assert VIP not in net.inside("ip", "address")


def test_what_somebody_takes_away_is_put_back(net: Net, tmp_path: Path) -> None:
    one = preparer(net, tmp_path)
    prepare(net, one, L3)
    prepared = net.machine()
    net.inside("ip", "address", "del", f"{VIP}/32", "dev", "lo")
    net.inside("ip", "link", "set", "eth0", "xdp", "off")
    net.inside("tc", "qdisc", "del", "dev", "eth0", "clsact")
    net.inside("sysctl", "-w", f"{ARP_IGNORE.replace('/', '.')}=0")
    assert prepare(net, one, L3).reasons == {NAME: ""}
    assert net.machine() == prepared


def test_a_setting_that_somebody_changes_later_is_left_alone(net: Net, tmp_path: Path) -> None:
    one = preparer(net, tmp_path)
    prepare(net, one, L2)
    net.inside("sysctl", "-w", f"{ARP_ANNOUNCE.replace('/', '.')}=1")
    assert undo(net, one)
    assert net.inside("sysctl", "-n", ARP_ANNOUNCE.replace("/", ".")).strip() == "1"


def test_another_xdp_program_is_not_touched(net: Net, tmp_path: Path) -> None:
    foreign = load_source(b"int foreign(struct xdp_md *ctx) { return XDP_PASS; }", [], {"foreign": "xdp"})
    with namespace(net.node):
        attach_xdp("eth0", foreign.fds["foreign"], "foreign")
    before = net.machine()
    one = preparer(net, tmp_path)
    outcome = prepare(net, one, L3)
    assert "another XDP program" in outcome.reasons[NAME]
    assert undo(net, one)
    assert net.machine() == before


def test_a_load_balancer_that_asks_in_vain_is_no_reason_against_another(net: Net, tmp_path: Path) -> None:
    one = preparer(net, tmp_path, load_balancers=2)
    outcome = prepare(net, one, {**L2, "odd": Told((Offer("web", (NODE,), "l2"),), (LB,))})
    assert outcome.reasons[NAME] == ""
    assert "is on eth0, which answers for it" in outcome.reasons["odd"]


def test_where_ipv6_is_off_the_rest_is_done_and_the_reason_is_told(net: Net, tmp_path: Path) -> None:
    net.inside("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1")
    before = net.machine()
    one = preparer(net, tmp_path)
    assert "IPv6 is off on lo" in prepare(net, one, L2).reasons[NAME]
    assert VIP in net.inside("ip", "address", "show", "lo")
    net.inside("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=0")
    assert prepare(net, one, L2).reasons[NAME] == ""
    assert undo(net, one)
    net.inside("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1")
    assert net.machine() == before


def test_an_interface_that_goes_away_takes_its_changes_with_it(net: Net, tmp_path: Path) -> None:
    one = preparer(net, tmp_path)
    prepare(net, one, L3)
    net.inside("ip", "link", "del", "eth0")
    assert "no route to" in prepare(net, one, L3).reasons[NAME]
    assert undo(net, one)
    assert list(tmp_path.iterdir()) == []


def test_for_l4_nothing_is_changed_nor_remembered(net: Net, tmp_path: Path) -> None:
    before = net.machine()
    one = preparer(net, tmp_path)
    assert prepare(net, one, told(Offer("web", (VIP,), "l4"))) == Outcome({NAME: ""}, NODE6)
    assert net.machine() == before
    assert list(tmp_path.iterdir()) == []
    with namespace(net.node), alone():
        pass


def test_one_gale_node_at_a_time(net: Net, tmp_path: Path) -> None:
    first = preparer(net, tmp_path)
    prepare(net, first, L2)
    second = preparer(net, tmp_path)
    assert "another gale-node" in prepare(net, second, L2).reasons[NAME]
    with pytest.raises(HostError, match="another gale-node"):
        undo(net, preparer(net, tmp_path))


def test_memory_is_of_one_network_namespace_and_one_boot(net: Net, tmp_path: Path) -> None:
    prepare(net, preparer(net, tmp_path), L2)
    (file,) = tmp_path.iterdir()
    with namespace(net.outside):
        assert Memory(tmp_path).read() == ()
    with namespace(net.node):
        assert len(Memory(tmp_path).read()) > 3
        file.write_text(file.read_text().replace('"boot":"', '"boot":"0'))
        assert Memory(tmp_path).read() == ()
        file.write_text("{")
        with pytest.raises(HostError, match="cannot be read"):
            Memory(tmp_path).read()
