"""For all tests: hypothesis sets no deadline, because a machine that does other things is slow, not wrong; and what a
program sets for its log, which is one for the whole process, ends with the test that ran it.

gale.rpc comes before any test imports grpc, as in the programs: it sets what grpc reads from the environment.
"""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

import gale.rpc  # noqa: F401

settings.register_profile("gale", deadline=None)
settings.load_profile("gale")


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    yield
    structlog.reset_defaults()
