"""Labs for tests that come one after the other and often want the same one."""

import logging

from e2e.faults import scenes
from e2e.waiting import until
from gale.errors import LabError
from gale.lab.cluster import Lab
from gale.lab.feed import Watch
from gale.lab.options import LabOptions

log = logging.getLogger(__name__)
UP_WITHIN_S = 60.0
MENDED_WITHIN_S = 15.0


class Labs:
    """At most one lab at a time, kept for as long as it is what the next test wants.

    `is_whole`: whether the last test left it as it was; unless it says so, the next one mends it.
    """

    def __init__(self, prefix: str) -> None:
        self._lab = Lab(prefix)
        self._options: LabOptions | None = None
        self._hopeless: dict[LabOptions, str] = {}
        self.is_whole = False

    def whole(self, options: LabOptions) -> Lab:
        """A lab in which everything runs and every node routes, however the test before left it."""
        if self._options == options:
            try:
                if self.is_whole:
                    self._lab.check_running()
                else:
                    self._mend()
                return self._lab
            except (AssertionError, LabError) as error:
                log.warning("what the test before left is of no use, there will be a new lab: %s", error)
        self.discard()
        if options in self._hopeless:
            raise LabError(self._hopeless[options])
        try:
            self._lab.up(options)
            self._lab.wait_routing(UP_WITHIN_S)
        except LabError as error:
            self._hopeless[options] = f"a lab with these options did not come up before: {error}"
            raise
        self._options = options
        return self._lab

    def _mend(self) -> None:
        for instance in self._lab.status():
            if not instance.running and self._lab.started(instance.name):
                self._lab.start(instance.name)
        with self._lab.watch() as watch:
            scenes.undrain(self._lab, watch)
            until(lambda: self._missing(watch), MENDED_WITHIN_S)

    def _missing(self, watch: Watch) -> str | None:
        self._lab.check_running()
        return scenes.routing(self._lab, watch)

    def discard(self) -> None:
        self._options = None
        self._lab.down()
