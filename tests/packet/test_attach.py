"""Programs on interfaces: in the place of gale's own without a gap, and never in that of others."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gale.dataplane import attach
from gale.dataplane.links import interface_index
from gale.dataplane.netlink import ask
from gale.dataplane.program import Program, load_source
from gale.dataplane.syscall import program_info
from gale.errors import DataplaneError, HostError
from tests.packet import needs
from tests.packet.network import Network, namespace, network

SOURCE = b"""
#include <uapi/linux/bpf.h>
#include <linux/pkt_cls.h>
int gale_public(struct xdp_md *ctx) { return XDP_PASS; }
int stranger(struct xdp_md *ctx) { return XDP_PASS; }
int gale_private(struct __sk_buff *skb) { return TC_ACT_UNSPEC; }
"""
KINDS = {"gale_public": "xdp", "stranger": "xdp", "gale_private": "tc"}
XDP_GENERIC = 2  # linux/if_link.h
PUBLIC, PRIVATE = "gale_public", "gale_private"

pytestmark = [needs.NAMESPACES, pytest.mark.usefixtures("bpf")]


@pytest.fixture(scope="module")
def programs() -> tuple[Program, Program]:
    return load_source(SOURCE, [], KINDS), load_source(SOURCE, [], KINDS)


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net, namespace(net.balancer):
        yield net


def number(descriptor: int) -> int:
    return program_info(descriptor).id


def qdiscs(interface: str) -> str:
    return subprocess.run(["tc", "qdisc", "show", "dev", interface], capture_output=True, text=True, check=True).stdout


@contextmanager
def stranger_on(interface: str, descriptor: int) -> Iterator[None]:
    attach.attach_xdp(interface, descriptor, "stranger")
    yield
    assert attach.detach_xdp(interface, "stranger")


def test_an_xdp_program_is_replaced_by_the_next(net: Network, programs: tuple[Program, Program]) -> None:
    old, new = programs
    assert attach.xdp_program("public") is None
    assert attach.attach_xdp("public", old.public_fd, PUBLIC) == "native"
    assert attach.attach_xdp("public", new.public_fd, PUBLIC) == "native"
    assert attach.xdp_program_id("public") == number(new.public_fd)
    assert attach.detach_xdp("public", PUBLIC)
    assert attach.xdp_program("public") is None
    assert not attach.detach_xdp("public", PUBLIC)


def test_a_generic_program_is_replaced_and_taken_off_where_it_is(
    net: Network, programs: tuple[Program, Program]
) -> None:
    """A veth could have it native as well: asked without a mode, the kernel would look there."""
    old, new = programs
    generic = {"attrs": [("IFLA_XDP_FD", old.public_fd), ("IFLA_XDP_FLAGS", XDP_GENERIC)]}
    ask(lambda ipr: ipr.link("set", index=interface_index("public"), xdp=generic))
    assert attach.xdp_program("public") == PUBLIC
    assert attach.attach_xdp("public", new.public_fd, PUBLIC) == "generic"
    assert attach.detach_xdp("public", PUBLIC)
    assert attach.xdp_program("public") is None


def test_the_program_of_others_stays(net: Network, programs: tuple[Program, Program]) -> None:
    own = programs[0]
    with stranger_on("public", own.fds["stranger"]):
        with pytest.raises(DataplaneError, match="public: another XDP program is attached, 'stranger': take it off"):
            attach.attach_xdp("public", own.public_fd, PUBLIC)
        assert not attach.detach_xdp("public", PUBLIC)
        assert attach.xdp_program("public") == "stranger"


def test_a_new_filter_is_asked_before_the_old_ones(net: Network, programs: tuple[Program, Program]) -> None:
    old, new = (program.fds[PRIVATE] for program in programs)
    attach.attach_filter("private", old, PRIVATE)
    handle = attach.add_filter("private", new, PRIVATE)
    assert attach.filters("private", PRIVATE) == [number(new), number(old)]
    third = attach.add_filter("private", old, PRIVATE)
    assert attach.filters("private", PRIVATE) == [number(old), number(new), number(old)]
    assert attach.remove_filters("private", PRIVATE, only=third) == 1
    assert attach.remove_filters("private", PRIVATE, but=handle) == 1
    assert attach.filters("private", PRIVATE) == [number(new)]
    attach.attach_filter("private", old, PRIVATE)
    assert attach.filters("private", PRIVATE) == [number(old)]


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_filters_and_qdisc_of_others_stay(net: Network, programs: tuple[Program, Program], direction: str) -> None:
    descriptor = programs[0].fds[PRIVATE]
    attach.attach_filter("private", descriptor, "stranger", direction)
    attach.attach_filter("private", descriptor, PRIVATE)
    assert set(attach.filter_names("private", direction)) >= {"stranger"}
    attach.detach_filter("private", PRIVATE)
    assert attach.filter_names("private", direction) == ["stranger"]
    assert attach.has_clsact("private")
    attach.detach_filter("private", "stranger", direction)
    assert not attach.has_clsact("private")
    assert "clsact" not in qdiscs("private")


def test_an_interface_that_does_not_exist(net: Network, programs: tuple[Program, Program]) -> None:
    own = programs[0]
    for request in (
        lambda: attach.attach_xdp("nosuch0", own.public_fd, PUBLIC),
        lambda: attach.detach_xdp("nosuch0", PUBLIC),
        lambda: attach.attach_filter("nosuch0", own.fds[PRIVATE], PRIVATE),
        lambda: attach.detach_filter("nosuch0", PRIVATE),
    ):
        with pytest.raises(HostError, match="no interface 'nosuch0' on this machine; there are lo, private, public"):
            request()


def test_a_refusal_names_every_way_that_was_tried(net: Network, programs: tuple[Program, Program]) -> None:
    """A program for filters is none for XDP."""
    with pytest.raises(DataplaneError, match=r"public: XDP program refused, native: .*; generic: "):
        attach.attach_xdp("public", programs[0].fds[PRIVATE], PUBLIC)
    with pytest.raises(DataplaneError, match="private: TC filter refused: "):
        attach.attach_filter("private", programs[0].public_fd, PRIVATE)
