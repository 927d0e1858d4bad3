"""What a test needs of the machine, and is skipped without."""

import os
import shutil

import pytest

NAMESPACES = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces")
ETHTOOL = pytest.mark.skipif(not shutil.which("ethtool"), reason="needs ethtool")
