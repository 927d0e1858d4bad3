"""For all tests: hypothesis sets no deadline, because a machine that does other things is slow, not wrong.

gale.rpc comes before any test imports grpc, as in the programs: it sets what grpc reads from the environment.
"""

from hypothesis import settings

import gale.rpc  # noqa: F401

settings.register_profile("gale", deadline=None)
settings.load_profile("gale")
