"""The units for systemd, as it reads them itself: known keys, few rights, a tight sandbox."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ("gale-lb", "gale-node")
EXPOSURE_MAX = 3.0

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


def analysed(folder: Path, unit: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Of the unit with programs that are there wherever the tests run, and without its manual page."""
    for file in (ROOT / "systemd").iterdir():
        text = re.sub(r"/usr/bin/gale-\w+", "/bin/true", file.read_text())
        (folder / file.name).write_text(re.sub(r"^Documentation=.*$", "", text, flags=re.M))
    path = folder / f"{unit}.service"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
    asked = ["systemd-analyze", "--no-pager", *command, str(path)]
    return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30, env=environment)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_knows_every_key(tmp_path: Path, unit: str) -> None:
    done = analysed(tmp_path, unit, "verify", "--man=no")
    complaints = [line for line in done.stderr.splitlines() if f"{unit}.service" in line]
    assert not complaints


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_is_tight(tmp_path: Path, unit: str) -> None:
    told = analysed(tmp_path, unit, "security", "--offline=true").stdout
    found = re.search(rf"Overall exposure level for {unit}\.service: ([\d.]+)", told)
    assert found, told
    assert float(found[1]) <= EXPOSURE_MAX


@pytest.mark.parametrize("unit", UNITS)
def test_the_right_to_everything_is_not_asked_for(unit: str) -> None:
    lines = (ROOT / f"systemd/{unit}.service").read_text().splitlines()
    given, bound = (
        next(line.partition("=")[2].split() for line in lines if line.startswith(key))
        for key in ("AmbientCapabilities=", "CapabilityBoundingSet=")
    )
    assert given == bound
    assert set(given) <= {"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_NET_RAW"}
    assert "User=gale" in lines
