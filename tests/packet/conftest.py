"""Fixtures of the packet tests: a load balancer for l4, one with every mode, and a node; compiled once."""

import pytest

from gale.dataplane.syscall import require_bpf
from gale.errors import HostError
from tests.packet.balancer import Balancer
from tests.packet.direct import Direct
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
