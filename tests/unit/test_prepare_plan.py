"""What a node changes, and what it takes back: decisions only."""

from dataclasses import replace

import pytest

from gale.prepare.needs import ARP_ANNOUNCE, ARP_IGNORE, RP_FILTER, Host, Needs, Offer, Told, Way, needs
from gale.prepare.plan import CLAMP, DECAP, Address, Attached, Change, Contents, Plan, Setting, begun, key, plan

LB, LB6, OTHER_LB = "10.0.0.2", "fd00::2", "10.0.0.3"
VIP, VIP6, OTHER_VIP = "203.0.113.80", "2001:db8::80", "203.0.113.81"
ETH0_RP = "net/ipv4/conf/eth0/rp_filter"
HOST = Host(
    addresses={"127.0.0.1": "lo", "10.0.0.11": "eth0", "fd00::11": "eth0"},
    towards={LB: Way("eth0", "10.0.0.11"), OTHER_LB: Way("eth0", "10.0.0.11"), LB6: Way("eth0", "fd00::11")},
    addresses6={"eth0": "fd00::11"},
    exits=frozenset({"eth0", "eth1"}),
    mtus={"lo": 65536, "eth0": 1500, "eth1": 9000},
    settings={ARP_IGNORE: 0, ARP_ANNOUNCE: 0, RP_FILTER: 0, ETH0_RP: 0},
)
L2 = Told((Offer("web", (VIP,), "l2"),), (LB,))
L3 = Told((Offer("web", (VIP,), "l3"),), (LB,))
ARP = [Setting(ARP_IGNORE, 1, 0), Setting(ARP_ANNOUNCE, 2, 0)]
BUILD = "b"


def first(told: Told, host: Host = HOST) -> Plan:
    return plan(needs([told], host), (), host, BUILD, all_heard=True)


def after(host: Host, made: tuple[Change, ...]) -> Host:
    """The machine when these have been made."""
    for change in made:
        match change:
            case Setting(name, value, _):
                host = replace(host, settings={**host.settings, name: value})
            case Address(address):
                host = replace(host, addresses={**host.addresses, address: "lo"})
            case Attached(interface, program, _, _):
                host = replace(host, programs=host.programs | {(interface, program)})
    return host


def contents(*segments: tuple[str, int], load_balancers: tuple[str, ...] = (LB,)) -> Contents:
    return Contents(BUILD, load_balancers, ("10.0.0.11",), segments)


def test_for_l4_nothing_is_needed() -> None:
    told = Told((Offer("web", (VIP,), "l4"),), (LB,))
    assert needs([told], HOST) == Needs()
    assert first(told) == Plan()


def test_for_l2_the_address_comes_last_and_no_program_at_all() -> None:
    assert first(L2).make == (*ARP, Address(VIP))


def test_for_l3_the_programs_too() -> None:
    held = contents((VIP, 1440))
    programs = [Attached("eth0", DECAP, held), Attached("eth0", CLAMP, held), Attached("eth1", CLAMP, held)]
    assert first(L3).make == (*ARP, *programs, Address(VIP))


@pytest.mark.parametrize(
    ("address", "tunnel", "segment"), [(VIP, 4, 1440), (VIP, 6, 1420), (VIP6, 4, 1420), (VIP6, 6, 1400)]
)
def test_a_segment_fits_the_tunnel(address: str, tunnel: int, segment: int) -> None:
    told = Told((Offer("web", (address,), "l3", tunnel),), (LB,))
    assert needs([told], HOST).segments == {address: segment}


def test_of_two_tunnels_for_one_address_the_larger_header_counts() -> None:
    told = Told((Offer("web", (VIP,), "l3", 6), Offer("mail", (VIP,), "l3", 4)), (LB,))
    assert needs([told], HOST).segments == {VIP: 1420}


def test_the_narrowest_way_counts() -> None:
    host = replace(HOST, towards={LB: Way("eth0", "10.0.0.11"), LB6: Way("eth1", "fd00::12")})
    told = Told((Offer("web", (VIP,), "l3"),), (LB, LB6))
    assert needs([told], host).segments == {VIP: 1440}
    assert needs([told], host).tunnels == {"eth0", "eth1"}


def test_for_ipv6_alone_no_setting_is_touched() -> None:
    told = Told((Offer("web", (VIP6,), "l2"),), (LB, LB6))
    assert first(told).make == (Address(VIP6),)


@pytest.mark.parametrize(
    ("setting", "value", "change"),
    [
        (ARP_IGNORE, 1, None),
        (ARP_IGNORE, 2, None),
        (ARP_IGNORE, 8, None),
        (ARP_IGNORE, 4, Setting(ARP_IGNORE, 1, 4)),
        (ARP_ANNOUNCE, 2, None),
        (ARP_ANNOUNCE, 1, Setting(ARP_ANNOUNCE, 2, 1)),
        (RP_FILTER, 1, Setting(ETH0_RP, 2, 0)),
        (ETH0_RP, 1, Setting(ETH0_RP, 2, 1)),
        (ETH0_RP, 2, None),
    ],
)
def test_a_setting_that_does_is_left_alone(setting: str, value: int, change: Setting | None) -> None:
    host = replace(HOST, settings={**HOST.settings, setting: value})
    touched = [each for each in first(L2, host).make if isinstance(each, Setting)]
    rest = [each for each in ARP if each.name != setting]
    assert set(touched) == {*rest, *([change] if change else [])}


def test_what_was_there_before_is_neither_made_nor_taken_back() -> None:
    host = after(HOST, (Address(VIP), Setting(ARP_IGNORE, 1, 0)))
    made = first(L2, host).make
    assert made == (Setting(ARP_ANNOUNCE, 2, 0),)
    assert plan(Needs(), made, after(host, made), BUILD, all_heard=True).back == made


def test_when_all_is_done_nothing_is_to_do() -> None:
    for told in (L2, L3):
        made = first(told).make
        assert plan(needs([told], HOST), made, after(HOST, made), BUILD, all_heard=True) == Plan()


def test_it_is_taken_back_the_other_way_round() -> None:
    made = first(L3).make
    back = plan(Needs(), made, after(HOST, made), BUILD, all_heard=True).back
    assert [type(change) for change in back] == [Address, *[Attached] * 3, *[Setting] * 2]


def test_a_load_balancer_that_was_not_heard_yet_keeps_everything() -> None:
    both = [L3, Told((Offer("mail", (OTHER_VIP,), "l3"),), (OTHER_LB,))]
    made = plan(needs(both, HOST), (), HOST, BUILD, all_heard=True).make
    host = after(HOST, made)
    assert plan(needs([L3], host), made, host, BUILD, all_heard=False) == Plan()
    gone = plan(needs([L3], host), made, host, BUILD, all_heard=True)
    assert gone.back == (Address(OTHER_VIP),)
    assert {change.contents for change in gone.make if isinstance(change, Attached)} == {contents((VIP, 1440))}


def test_services_of_several_are_one_union() -> None:
    both = [L2, Told((Offer("web", (VIP, OTHER_VIP), "l2"),), (OTHER_LB,))]
    made = plan(needs(both, HOST), (), HOST, BUILD, all_heard=True).make
    assert made == (*ARP, Address(VIP), Address(OTHER_VIP))


def test_what_somebody_took_away_is_made_again_and_remembers_what_was_before() -> None:
    made = first(L3).make
    torn = replace(
        after(HOST, made),
        addresses=HOST.addresses,
        settings={**HOST.settings, ARP_IGNORE: 0, ARP_ANNOUNCE: 2},
        programs=frozenset({("eth0", DECAP), ("eth0", CLAMP)}),
    )
    again = plan(needs([L3], torn), made, torn, BUILD, all_heard=True)
    assert again.back == ()
    assert again.make == (ARP[0], Attached("eth1", CLAMP, contents((VIP, 1440))), Address(VIP))
    assert again.again == {key(change) for change in again.make}


def test_another_build_and_other_contents_are_exchanged_without_complaint() -> None:
    made = first(L3).make
    host = after(HOST, made)
    newer = plan(needs([L3], host), made, host, "c", all_heard=True)
    assert [type(change) for change in newer.make] == [Attached] * 3
    assert newer.again == frozenset()
    narrow = replace(host, mtus={**host.mtus, "eth0": 1400})
    assert len(plan(needs([L3], narrow), made, narrow, BUILD, all_heard=True).make) == 3


def test_what_was_only_begun_is_made() -> None:
    made = first(L3).make
    host = after(HOST, made)
    killed = tuple(begun(change) for change in made)
    assert [type(change) for change in plan(needs([L3], host), killed, host, BUILD, all_heard=True).make] == [
        Attached
    ] * 3


def test_a_qdisc_that_was_there_is_remembered() -> None:
    host = replace(HOST, clsact=frozenset({"eth1"}))
    made = first(L3, host).make
    assert [c.clsact for c in made if isinstance(c, Attached) and c.program == CLAMP] == [False, True]
    host = replace(after(host, made), clsact=frozenset({"eth0", "eth1"}))
    assert plan(needs([L3], host), made, host, BUILD, all_heard=True) == Plan()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (LB, "a load balancer's own address"),
        ("10.0.0.11", "is on eth0, which answers for it"),
        ("127.0.0.9", "cannot be the address of a service"),
        ("fe80::1", "cannot be the address of a service"),
        ("224.0.0.1", "cannot be the address of a service"),
        ("web", "is no IP address"),
    ],
)
def test_an_address_this_machine_cannot_have(address: str, says: str) -> None:
    told = Told((Offer("web", (VIP, address), "l2"),), (LB,))
    needed = needs([told], HOST)
    assert len(needed.hindrances) == 1
    assert says in needed.hindrances[0]
    assert needed.addresses == {VIP}


def test_a_load_balancer_without_a_route_is_a_hindrance() -> None:
    told = Told((Offer("web", (VIP,), "l3"),), ("10.9.9.9",))
    assert needs([told], HOST).hindrances == ("no route to 10.9.9.9",)


def test_loopback_must_be_up() -> None:
    assert needs([L2], replace(HOST, loopback=False)).hindrances == ("lo is down: ip link set lo up",)


def test_a_load_balancer_on_the_same_machine_sends_no_tunnels() -> None:
    here = replace(HOST, towards={LB: Way("lo", LB), OTHER_LB: HOST.towards[OTHER_LB]})
    both = [L3, Told((Offer("web", (VIP,), "l3"),), (OTHER_LB,))]
    needed = needs(both, here)
    assert needed.tunnels == {"eth0"}
    assert set(needed.settings) == {ARP_IGNORE, ARP_ANNOUNCE, ETH0_RP}
    assert needed.own == {"10.0.0.11"}


def test_below_a_vlan_the_device_is_what_tunnels_arrive_at() -> None:
    host = replace(HOST, towards={LB: Way("eth0.7", "10.0.0.11", "eth0")}, mtus={"eth0": 1500, "eth0.7": 1400})
    needed = needs([L3], host)
    assert needed.tunnels == {"eth0"}
    assert "eth0.7" in needed.exits
    assert needed.segments == {VIP: 1340}


def test_tunnels_come_to_the_addresses_that_load_balancers_know() -> None:
    told = Told((Offer("web", (VIP,), "l3"),), (LB, LB6))
    needed = needs([told], HOST, "2001:db8:1::11")
    assert needed.own == {"10.0.0.11", "fd00::11", "2001:db8:1::11"}
    assert needed.load_balancers == {LB, LB6}


def test_the_ipv6_address_is_that_of_the_interface_towards_the_load_balancers() -> None:
    assert HOST.address6() == "fd00::11"
    assert replace(HOST, towards={LB: Way("eth1", "10.0.0.11")}).address6() == ""
