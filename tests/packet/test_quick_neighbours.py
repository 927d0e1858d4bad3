"""The kernel asks for neighbours more often while gale-lb runs, and as before when it has ended, however it ended."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gale.dataplane.quick_neighbours import RETRANS_MS, put_back, quick_neighbours
from tests.packet import needs
from tests.packet.network import Network, namespace, network

pytestmark = needs.NAMESPACES

USUAL_MS = 1000


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net, namespace(net.balancer):
        yield net


def setting(version: str, interface: str = "private") -> Path:
    return Path(f"/proc/sys/net/{version}/neigh/{interface}/retrans_time_ms")


def settings() -> list[int]:
    return [int(setting(version).read_text()) for version in ("ipv4", "ipv6")]


def test_meanwhile_and_put_back(net: Network) -> None:
    setting("ipv6").write_text("700")
    with quick_neighbours("private"):
        assert settings() == [RETRANS_MS, RETRANS_MS]
    assert settings() == [USUAL_MS, 700]


def test_after_one_that_was_killed(net: Network) -> None:
    """Nothing says what it was before: what new interfaces get is put back."""
    for version in ("ipv4", "ipv6"):
        setting(version).write_text(str(RETRANS_MS))
    with quick_neighbours("private"):
        assert settings() == [RETRANS_MS, RETRANS_MS]
    assert settings() == [USUAL_MS, USUAL_MS]


def test_detached_after_one_that_was_killed(net: Network) -> None:
    setting("ipv4").write_text(str(RETRANS_MS))
    setting("ipv6").write_text("700")
    put_back("private")
    assert settings() == [USUAL_MS, 700]


def test_an_interface_that_is_gone_is_nothing_to_put_back(net: Network) -> None:
    with quick_neighbours("private"):
        net.ip(net.balancer, "link", "del", "private")
    put_back("private")
