"""Numbers of listeners: kept over restarts, and never taken for one another."""

import random
from collections.abc import Iterable

import pytest

from gale.dataplane.listeners import NO_LISTENER, NO_SERVICE, Directory, Known, number, read, write
from gale.dataplane.settings import LISTENERS_MAX, Listener
from gale.errors import DataplaneError
from tests.packet.balancer import Balancer

VIP, VIP6 = "192.0.2.80", "2001:db8::80"
WEB = Listener("web", VIP, 80, "tcp", 8080)
WEB6 = Listener("web", VIP6, 80, "tcp", 8080)
DNS = Listener("dns", VIP, 53, "udp", 53, "l3", 6)
SERVICES = ("web", "dns")


def follow(directory: Directory, listeners: Iterable[Listener], used: Iterable[int] = ()) -> Directory:
    return number(listeners, SERVICES, directory, set(used))


def served(directory: Directory) -> dict[tuple[str, int, str], int]:
    return {entry.key: place for place, entry in directory.entries.items() if entry.served}


def test_numbers_begin_with_one() -> None:
    directory = number([WEB, WEB6, DNS], SERVICES)
    assert served(directory) == {(VIP, 80, "tcp"): 1, (VIP6, 80, "tcp"): 2, (VIP, 53, "udp"): 3}
    assert directory.modes == {"l4", "l3"}


def test_a_listener_keeps_its_number_whatever_comes_and_goes() -> None:
    first = number([WEB, DNS], SERVICES)
    second = follow(first, [WEB6, DNS])
    assert served(second) == {(VIP, 53, "udp"): 2, (VIP6, 80, "tcp"): 3}
    third = follow(second, [DNS, WEB, WEB6], used=[1])
    assert served(third) == {(VIP, 53, "udp"): 2, (VIP6, 80, "tcp"): 3, (VIP, 80, "tcp"): 4}


def test_a_number_is_given_again_once_no_flow_names_it() -> None:
    """It opens flows until the programs are swapped, so not at once either."""
    directory = follow(number([WEB, DNS], SERVICES), [DNS])
    assert not directory.entries[1].served
    assert directory.entries[1].service == NO_SERVICE
    still_used = follow(directory, [DNS], used=[1])
    assert 1 in still_used.entries
    unused = follow(still_used, [DNS, WEB6])
    assert served(unused)[VIP6, 80, "tcp"] == 1


@pytest.mark.parametrize(
    "change",
    [Listener("web", VIP, 80, "tcp", 9090), Listener("web", VIP, 80, "tcp", 8080, "l2")],
    ids=["target port", "mode"],
)
def test_a_changed_listener_is_a_new_one_with_an_earlier_one(change: Listener) -> None:
    directory = follow(number([WEB], SERVICES), [change])
    assert served(directory) == {(VIP, 80, "tcp"): 2}
    assert directory.entries[2].earlier == 1
    earlier = directory.entries[1]
    assert (earlier.mode, earlier.target_port, earlier.service, earlier.served) == ("l4", 8080, 0, False)
    assert "l4" in directory.modes
    assert follow(directory, [change], used=[1]).entries == directory.entries, "its flows live"
    gone = follow(directory, [change], used=[])
    assert gone.entries.keys() == {2}
    assert gone.entries[2].earlier == NO_LISTENER


def test_an_earlier_listener_without_flows_of_its_own_stays() -> None:
    """l2 and l3 keep no flows: nobody can tell when the last connection ends."""
    directory = follow(number([DNS], SERVICES), [Listener("dns", VIP, 53, "udp", 53, "l4")])
    assert directory.entries[2].earlier == 1
    again = follow(directory, [Listener("dns", VIP, 53, "udp", 53, "l4")], used=[2])
    assert again.entries[2].earlier == 1
    assert again.entries[1].mode == "l3"


def test_a_change_that_is_taken_back_finds_its_flows_again() -> None:
    directory = follow(number([WEB], SERVICES), [Listener("web", VIP, 80, "tcp", 8080, "l2")])
    back = follow(directory, [WEB], used=[1])
    assert served(back) == {(VIP, 80, "tcp"): 1}
    assert back.entries[1].earlier == 2
    assert back.entries[2].mode == "l2"


def test_what_concerns_no_flow_is_changed_in_place() -> None:
    directory = follow(number([DNS], SERVICES), [Listener("web", VIP, 53, "udp", 99, "l3", 4)])
    assert served(directory) == {(VIP, 53, "udp"): 1}
    assert (directory.entries[1].tunnel, directory.entries[1].service) == (4, 0)


def test_a_service_that_becomes_another_takes_its_earlier_listener_along() -> None:
    directory = follow(number([WEB], SERVICES), [Listener("dns", VIP, 80, "tcp", 8080, "l2")])
    assert [directory.entries[place].service for place in (1, 2)] == [1, 1]


def many(first: int, count: int) -> list[Listener]:
    return [Listener("web", VIP, port, "tcp", 8080) for port in range(first, first + count)]


def test_when_no_number_is_left_flows_of_listeners_long_gone_are_given_up() -> None:
    whole = number(many(1, LISTENERS_MAX), SERVICES)
    with pytest.raises(DataplaneError, match="1 listeners are new or changed at once, and 0 numbers are left"):
        follow(whole, many(2, LISTENERS_MAX), used=whole.entries)
    fewer = follow(whole, many(2, LISTENERS_MAX - 1), used=whole.entries)
    assert not fewer.given_up
    replaced = follow(fewer, many(2, LISTENERS_MAX), used=whole.entries)
    assert replaced.given_up == {1}
    assert served(replaced)[VIP, LISTENERS_MAX + 1, "tcp"] == 1


def test_random_changes_keep_the_rules() -> None:
    """Nobody's number becomes another's while flows may name it."""
    rng = random.Random(7)
    pool = [
        Listener("web", VIP, port, protocol, target, mode)
        for port in range(1, 6)
        for protocol in ("tcp", "udp")
        for target in (1, 2)
        for mode in ("l2", "l4")
    ]
    directory, meant = Directory({}), dict[int, tuple[object, ...]]()
    for _ in range(500):
        wanted = {(each.port, each.protocol): each for each in rng.sample(pool, rng.randint(1, 8))}
        used = {place for place in meant if rng.random() < 0.5}
        before = set(served(directory).values())
        directory = follow(directory, wanted.values(), used)
        for place, entry in directory.entries.items():
            meaning = (entry.key, entry.mode, entry.target_port if entry.mode == "l4" else 0)
            if place in used | before and place in meant:
                assert meant[place] == meaning
            meant[place] = meaning
            assert entry.earlier != place
            assert entry.earlier == NO_LISTENER or not directory.entries[entry.earlier].served
        assert served(directory).keys() == {(VIP, port, protocol) for port, protocol in wanted}
        meant = {place: meaning for place, meaning in meant.items() if place in directory.entries or place in used}


def test_the_map_is_read_as_it_was_written(loaded: Balancer) -> None:
    table = loaded.program.maps["directory"]
    first = number([WEB, WEB6, DNS, *many(1000, 50)], SERVICES)
    directory = follow(first, [Listener("web", VIP, 80, "tcp", 8080, "l2"), WEB6, Listener("web", VIP, 80, "udp", 1)])
    leaf = table.Leaf()
    write(directory, leaf)
    assert read(table.Leaf.from_buffer_copy(bytes(leaf))) == directory
    assert read(table.Leaf()) == Directory({})


def test_listeners_of_one_port_make_a_chain(loaded: Balancer) -> None:
    leaf = loaded.program.maps["directory"].Leaf()
    write(number([WEB, WEB6], SERVICES), leaf)
    port = 2 * int.from_bytes((80).to_bytes(2, "big"), "little")
    first = int.from_bytes(bytes(leaf.first)[port : port + 2], "little")
    assert {first, leaf.listeners[first].next} == {1, 2}
    assert leaf.listeners[leaf.listeners[first].next].next == NO_LISTENER


def test_a_known_listener_fits_its_like() -> None:
    one = Known(VIP, 80, "tcp", "l4", 1, 4)
    assert one.goes_on_as(Known(VIP, 80, "tcp", "l4", 1, 6))
    assert not one.goes_on_as(Known(VIP, 80, "tcp", "l4", 2, 4))
