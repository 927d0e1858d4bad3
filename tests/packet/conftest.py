"""Fixtures of the packet tests: one load balancer, compiled once and emptied before each test."""

import pytest

from gale.dataplane.syscall import require_bpf
from gale.errors import HostError
from tests.packet.balancer import Balancer


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
