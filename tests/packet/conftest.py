"""Fixtures of the packet tests: a load balancer for l4, one with every mode and a node, compiled once; networks."""

from collections.abc import Iterator

import pytest

from gale.dataplane.adapter import BpfDataplane
from gale.dataplane.syscall import require_bpf
from gale.errors import HostError
from tests.packet.balancer import Balancer
from tests.packet.direct import Direct
from tests.packet.live import started
from tests.packet.network import Network, network
from tests.packet.tunnels import Node


@pytest.fixture(scope="session")
def bpf() -> None:
    """For tests that load programs themselves."""
    try:
        require_bpf()
    except HostError as error:
        pytest.skip(f"packet tests need BPF: {error}")


@pytest.fixture(scope="session")
def loaded(bpf: None) -> Balancer:
    """Compiled once; tests use `balancer`."""
    return Balancer()


@pytest.fixture
def balancer(loaded: Balancer) -> Balancer:
    loaded.reset()
    return loaded


@pytest.fixture(scope="session")
def loaded_direct(bpf: None) -> Direct:
    """Likewise; tests use `direct`."""
    return Direct()


@pytest.fixture
def direct(loaded_direct: Direct) -> Direct:
    loaded_direct.reset()
    return loaded_direct


@pytest.fixture(scope="session")
def node(bpf: None) -> Node:
    """It keeps nothing but counters."""
    return Node()


@pytest.fixture
def net(bpf: None) -> Iterator[Network]:
    """Of the test's own."""
    with network() as net:
        yield net


@pytest.fixture(scope="module")
def shared_net(bpf: None) -> Iterator[Network]:
    with network() as net:
        yield net


@pytest.fixture(scope="module")
def shared(shared_net: Network) -> Iterator[BpfDataplane]:
    """Attached in `shared_net`."""
    dataplane = started(shared_net)
    yield dataplane
    dataplane.close()
