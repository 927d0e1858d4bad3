"""The demo as a newcomer runs it: it keeps its promises, says so, and leaves nothing behind."""

import signal
import subprocess
import sys
import time

import pytest

from e2e.waiting import until
from gale.lab.cluster import Lab

DEMO = [sys.executable, "-m", "gale.cli.lab", "--prefix", "gale-demo", "demo", "--once"]


def in_the_middle_of_the_start(demo: "subprocess.Popen[str]") -> None:
    """Wait until then, where most is half done."""
    assert demo.stdout is not None
    assert "Starting" in demo.stdout.readline()
    until(lambda: None if Lab("gale-demo").leftovers() else "anything of the lab", within_s=10)
    time.sleep(0.5)


def test_one_round_ends_well_and_leaves_nothing() -> None:
    demo = subprocess.run([*DEMO, "--watched", "0.6"], capture_output=True, text=True, timeout=100, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Everything that was promised happened" in demo.stdout
    assert not Lab("gale-demo").leftovers()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_cleans_up(number: signal.Signals) -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        in_the_middle_of_the_start(demo)
        demo.send_signal(number)
        demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert not Lab("gale-demo").leftovers()


def test_what_a_killed_demo_left_is_cleaned_up_by_the_next() -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        in_the_middle_of_the_start(demo)
        demo.kill()
    lab = Lab("gale-demo")
    assert lab.leftovers()
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as again:
        assert again.stdout is not None
        assert any("Every node routes" in line for line in again.stdout)
        again.send_signal(signal.SIGINT)
        again.communicate(timeout=30)
    assert again.returncode == 130
    assert not lab.leftovers()
