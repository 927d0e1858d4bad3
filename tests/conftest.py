"""For all tests: hypothesis sets no deadline, because a machine that does other things is slow, not wrong."""

from hypothesis import settings

settings.register_profile("gale", deadline=None)
settings.load_profile("gale")
