"""The benchmark runs, and its figures have the form that bench/ collects."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CASES = {"empty", "parse only", "no service", "to the node", "to the client", "new flow", "new flow, full"}
KEYS = {"mode", "ip", "protocol", "case", "flows", "ns", "floor_ns", "spread"}


@pytest.mark.usefixtures("loaded")
def test_every_case(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench.packet", "--rounds", "2", "--packets", "1000", "--json", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    figures = json.loads(file.read_text())
    assert {figure["case"] for figure in figures} == CASES
    assert all(figure.keys() == KEYS for figure in figures)
