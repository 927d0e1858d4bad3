"""gale-lb is killed, started again, replaced by another build and given other services, under load: nobody notices."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import gale
from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.waiting import until
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions
from gale.lab.topology import endpoint

OPTIONS = LabOptions(udp=True)
LB = "lb-0"
KEPT = 200
PROBE = Path(__file__).with_name("probe.py")
PROBES_PER_S = {False: 1_000, True: 5_000}
"""In the short form, and in the long one."""
READY_WITHIN_S = 60.0


@dataclass(slots=True)
class Probe:
    """`sent` and `lost` datagrams, `longest` in a row: after the end."""

    sent: int = 0
    lost: int = 0
    longest: int = 0


@contextmanager
def probing(lab: Lab, where: str, rate: int) -> Iterator[Probe]:
    """Datagrams at an even pace, from the client to the echo behind a load balancer, and back."""
    address, _, port = where.rpartition(":")
    command = lab.command("client", [sys.executable, str(PROBE), address, port, str(rate)])
    found = Probe()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=10)
        found.sent, found.lost, found.longest = map(int, said.split())


def forwarding(lab: Lab, name: str) -> int:
    """How often a load balancer has said that it forwards: once a start."""
    return lab.log(name).count('event="forwarding"') + lab.log(name).count("event=forwarding ")


def start(lab: Lab, name: str) -> None:
    """Until it forwards with programs of its own."""
    before = forwarding(lab, name)
    lab.start(name)

    def missing() -> str | None:
        lab.check_running(name)
        return f"{name} forwards" if forwarding(lab, name) == before else None

    until(missing, READY_WITHIN_S)


def troubled(
    lab: Lab, results: Results, long: bool, fault: str, trouble: Callable[[], None], bound_lost: bool = True
) -> None:
    """Under requests on kept and new connections, flows that are kept, and datagrams: nothing fails."""
    where = endpoint(lab.topology.instance(LB))
    with (
        lab.flows(where, KEPT, interval_s=0.2) as kept,
        scenes.under_load(lab, LB, long) as load,
        probing(lab, where, PROBES_PER_S[long]) as probe,
    ):
        until(lambda: None if kept.last else "flows", within_s=20)
        time.sleep(1)
        trouble()
        time.sleep(1)
        asked = time.monotonic()
        until(lambda: None if kept.asked_since(asked) else "an answer on every flow", within_s=20)
        broken = kept.broken
        alive = kept.last.alive if kept.last else 0
    results.judge(
        "takeover",
        f"{fault}, {PROBES_PER_S[long]} datagrams/s",
        f"0 failed, 0 of {KEPT} flows broken" + (", 0 lost" if bound_lost else ""),
        f"{load.told}, {len(broken)} flows broken, {probe.lost} of {probe.sent} datagrams lost",
        not load.failed and not broken and alive == KEPT and (not bound_lost or not probe.lost),
    )


def test_kill_and_start(lab: Lab, results: Results, long: bool) -> None:
    times = 20 if long else 2

    def trouble() -> None:
        for _ in range(times):
            lab.kill(LB)
            start(lab, LB)

    troubled(lab, results, long, f"kill -9 and start, {times} times", trouble)


@pytest.mark.long_form
def test_stop_and_start(lab: Lab, results: Results, long: bool) -> None:
    def trouble() -> None:
        lab.stop(LB)
        start(lab, LB)

    troubled(lab, results, long, "stop and start", trouble)


@pytest.fixture
def other_build(tmp_path: Path) -> Path:
    """The same programs, but their tables of flows have some fields in other places. To be put on PYTHONPATH."""
    shutil.copytree(Path(gale.__file__).parent, tmp_path / "gale")
    header = tmp_path / "gale" / "bpf" / "abi.h"
    text = header.read_text()
    for struct, one, two in (
        ("struct return_path {", "__be16 node_port;", "__be16 source_port;"),
        ("struct flow {", "__u16 node;", "__be16 source_port;"),
    ):
        first = text.index(one, text.index(struct))
        second = text.index(two, first)
        text = text[:first] + two + text[first + len(one) : second] + one + text[second + len(two) :]
    header.write_text(text)
    return tmp_path


def test_another_build_and_back(lab: Lab, results: Results, other_build: Path, long: bool) -> None:
    path = os.pathsep.join([str(other_build), *filter(None, [os.environ.get("PYTHONPATH")])])

    def trouble() -> None:
        for environment in ({"PYTHONPATH": path}, {}):
            lab.kill(LB)
            with lab.noted() as notes:
                notes.environments[LB] = environment
            converted = lab.log(LB).count("taking over flows")
            start(lab, LB)
            assert lab.log(LB).count("taking over flows") > converted

    troubled(lab, results, long, "a build with other tables, and back", trouble, bound_lost=False)


@pytest.mark.long_form
def test_another_size_and_back(lab: Lab, results: Results, long: bool) -> None:
    def trouble() -> None:
        for flows in (1 << 19, 0):  # and not fewer than usual first: ports that two flows share there would be lost
            lab.configure(LB, flows=flows)
            lab.kill(LB)
            start(lab, LB)

    troubled(lab, results, long, "tables of another size, and back", trouble, bound_lost=False)


# Other services


def change(lab: Lab, modes: tuple[str, ...], only_first: bool = False) -> None:
    """The service that is under load is of the first mode from now on; of the others there may be none."""
    lab.configure(LB, modes=modes)
    file = lab.store.config(LB)
    if only_first:
        text = file.read_text()
        service = text.partition("\n[[service]]\n")[2].partition("\n[")[0]
        assert service
        file.write_text(text.replace(f"\n[[service]]\n{service}", ""))
    lab.kill(LB)
    start(lab, LB)


@pytest.mark.long_form
@pytest.mark.lab(LabOptions(load_balancers=1, modes=("l2", "l4"), udp=True))
def test_another_mode_and_back(lab: Lab, results: Results, long: bool) -> None:
    def trouble() -> None:
        change(lab, ("l4", "l2"))
        change(lab, ("l2", "l4"))

    troubled(lab, results, long, "l2 becomes l4, and l2 again", trouble, bound_lost=False)


@pytest.mark.lab(LabOptions(load_balancers=1, modes=("l2", "l4"), udp=True))
def test_a_mode_that_nodes_prepare_for_and_back(lab: Lab, results: Results, long: bool) -> None:
    """No other service has the address: nodes must take it before they are sent to there."""
    change(lab, ("l4", "l2"), only_first=True)
    lab.wait_routing(30)
    time.sleep(1)

    def trouble() -> None:
        change(lab, ("l2", "l4"), only_first=True)
        time.sleep(1)
        change(lab, ("l4", "l2"), only_first=True)

    try:
        troubled(
            lab, results, long, "l4 becomes l2, which no other service is, and l4 again", trouble, bound_lost=False
        )
    finally:
        change(lab, ("l2", "l4"))
