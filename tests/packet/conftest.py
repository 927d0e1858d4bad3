"""Fixtures of the packet tests: a load balancer for l4 and one for l2 and l3, compiled once, emptied for each test."""

import pytest

from gale.dataplane.syscall import require_bpf
from gale.errors import HostError
from tests.packet.direct import Direct


@pytest.fixture(scope="session")
def loaded():
    """Compiled once; tests use `balancer`."""
    from tests.packet.balancer import Balancer
    skip_without_bpf()
    return Balancer()


@pytest.fixture
def balancer(loaded):
    loaded.reset()
    return loaded


@pytest.fixture(scope="session")
def loaded_direct() -> Direct:
    """Likewise; tests use `direct`."""
    skip_without_bpf()
    return Direct()


@pytest.fixture
def direct(loaded_direct: Direct) -> Direct:
    loaded_direct.reset()
    return loaded_direct


def skip_without_bpf() -> None:
    try:
        require_bpf()
    except HostError as error:
        pytest.skip(f"packet tests need BPF: {error}")
