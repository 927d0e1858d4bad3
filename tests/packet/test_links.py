"""Interfaces as the kernel describes them, and their places in the map."""

import struct
from typing import Any

import pytest

from gale.dataplane.hop import LINKS, NO_LINK, PUBLIC_LINK
from gale.dataplane.links import Features, Link, Places, link_facts
from gale.dataplane.neighbours import Resolver
from gale.dataplane.rtnetlink import Answer, Conversation, Question, attribute, attributes, messages

MAC = bytes.fromhex("020000000001")
UP = 1 | 1 << 16


class Kernel:
    """Answers what it was told to: index -> flags and attributes of the interface."""

    def __init__(self, links: dict[int, tuple[int, dict[int, bytes]]]) -> None:
        self._links = links

    def ask_all(self, questions: list[Question]) -> list[Answer]:
        return [self._answer(struct.unpack("=xxxxi8x", question.head)[0]) for question in questions]

    def _answer(self, index: int) -> Answer:
        if index not in self._links:
            return Answer(19)
        flags, found = self._links[index]
        return Answer(0, struct.pack("=xxHiIxxxx", 1, index, flags), found)


def vlan(number: int, protocol: bytes = b"\x81\x00") -> bytes:
    """IFLA_LINKINFO of such an interface."""
    data = attribute(1, struct.pack("=H", number)) + attribute(5, protocol)
    return attribute(1, b"vlan\0") + attribute(2 | 1 << 15, data)


def names(name: str, mac: bytes = MAC, mtu: int = 1500, **more: bytes) -> dict[int, bytes]:
    others = {"link": 5, "info": 18}
    return {1: mac, 3: name.encode() + b"\0", 4: struct.pack("=I", mtu)} | {others[key]: more[key] for key in more}


LINKS_THERE: dict[int, tuple[int, dict[int, bytes]]] = {
    2: (UP, names("eth0", bytes(5) + b"\x02")),
    3: (UP, names("eth0.7", mtu=1496, link=struct.pack("=I", 2), info=vlan(7))),
    4: (UP, names("eth0.8", link=struct.pack("=I", 2), info=vlan(8, b"\x88\xa8"))),
    5: (UP, names("eth0.7.9", link=struct.pack("=I", 3), info=vlan(9))),
    6: (1, names("eth1")),
    7: (UP, names("tun0", mac=b"")),
    8: (UP, names("eth2", link=struct.pack("=I", 40), info=attribute(1, b"veth\0"))),
}


@pytest.fixture
def facts() -> dict[int, Link]:
    kernel: Any = Kernel(LINKS_THERE)
    return link_facts(kernel, Features(), [*LINKS_THERE, 99])


def test_a_vlan_leads_out_of_the_interface_below(facts: dict[int, Link]) -> None:
    assert (facts[3].parent, facts[3].vlan, facts[3].mtu, facts[3].mac) == (2, 7, 1496, MAC)
    assert (facts[2].parent, facts[2].vlan) == (0, 0)


def test_the_other_end_of_a_veth_is_not_below_it(facts: dict[int, Link]) -> None:
    assert facts[8].parent == 0


def test_one_that_is_gone_is_missing(facts: dict[int, Link]) -> None:
    assert 99 not in facts


@pytest.mark.parametrize(
    ("index", "trouble"),
    [
        (3, ""),
        (4, "eth0.8: only VLANs of 802.1Q directly on an interface are supported"),
        (5, "eth0.7.9: only VLANs of 802.1Q directly on an interface are supported"),
        (6, "eth1 is down"),
        (7, "tun0 is no Ethernet interface"),
    ],
)
def test_what_frames_cannot_be_sent_out_of(facts: dict[int, Link], index: int, trouble: str) -> None:
    link = facts[index]
    assert Resolver().trouble(link, facts[link.parent] if link.parent else link) == trouble


def test_places_are_given_out_once_and_taken_back_from_what_is_gone() -> None:
    wrote, gone = dict[int, int](), set[int]()
    places = Places(100, lambda place, index: wrote.update({place: index}), lambda index: index not in gone)
    assert places.place(100) == PUBLIC_LINK
    given = [places.place(index) for index in range(1, LINKS - 1)]
    assert sorted(given) == list(range(PUBLIC_LINK + 1, LINKS))
    assert wrote == dict(zip(given, range(1, LINKS - 1), strict=True))
    assert places.place(1) == given[0]
    assert places.place(200) == NO_LINK
    gone |= {7, 100}
    assert places.place(200) == given[6]
    assert wrote[given[6]] == 200
    assert places.place(201) == NO_LINK


def test_attributes_there_and_back() -> None:
    packed = attribute(1, b"a") + attribute(2 | 1 << 15, attribute(3, b"four"))
    assert attributes(packed)[1] == b"a"
    assert attributes(attributes(packed)[2]) == {3: b"four"}


def test_a_datagram_that_is_cut_off_ends() -> None:
    message = struct.pack("=IHHII", 20, 16, 0, 0, 0) + b"four"
    assert list(messages(message * 2)) == [(16, 16, 20), (16, 36, 40)]
    assert list(messages(message + bytes(16))) == [(16, 16, 20)]
    assert list(messages(message[:18])) == [(16, 16, 18)]


def test_answers_that_came_too_late_are_passed_over() -> None:
    kernel = Conversation()
    loopback = Question(18, struct.pack("=xxHiIxxxx", 0, 1, 0), {})
    kernel._kernel.sendto(struct.pack("=IHHII", 32, 18, 1, 77, 0) + loopback.head, (0, 0))
    (answer,) = kernel.ask(loopback)
    assert answer.attributes[3] == b"lo\0"
    kernel.close()
