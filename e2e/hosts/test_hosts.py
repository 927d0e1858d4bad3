"""What must hold on real machines: all up, forwarding, a node lost, the leader lost, a machine rebooted, an upgrade
rolled. Names are resolved by mDNS, orders go over SSH, and requests come from the machine that runs the tests."""

import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from e2e.hosts.conftest import WHOLE_WITHIN_S
from e2e.hosts.hosts import Host, Inventory
from e2e.waiting import until

pytestmark = pytest.mark.timeout(900)
PLAYBOOK = Path(__file__).parents[2] / "ansible/playbooks/lb.yml"
BACK_WITHIN_S = 120.0
ELECTED_WITHIN_S = 15.0
OUT_WITHIN_S = 15.0
LOST_S = 20


def answers(host: Host, times: int = 40) -> set[str]:
    return {host.answer() for _ in range(times)}


def lose(host: Host) -> None:
    """Its private interface goes down, and up again after a while."""
    interface = host.private_interface
    host.detached(f"ip link set {interface} down; sleep {LOST_S}; ip link set {interface} up")


def test_everything_is_up(whole: Inventory) -> None:
    for host in (*whole.load_balancers, *whole.nodes):
        unit = "gale-lb" if host in whole.load_balancers else "gale-node"
        assert host.run(f"systemctl is-active {unit}").strip() == "active"


def test_every_load_balancer_forwards_to_every_node(whole: Inventory) -> None:
    for host in whole.load_balancers:
        assert answers(host) == {node.short for node in whole.nodes}


def test_a_node_is_lost(whole: Inventory) -> None:
    lost, *others = whole.nodes
    lose(lost)
    left = {node.short for node in others}
    until(
        lambda: None if answers(whole.load_balancers[0]) == left else f"{lost.short} still gets requests", OUT_WITHIN_S
    )
    assert all(answers(host) == left for host in whole.load_balancers)
    until(whole.missing, LOST_S + BACK_WITHIN_S)


def test_the_leader_is_lost(whole: Inventory) -> None:
    leader = whole.leader()
    others = [host for host in whole.load_balancers if host is not leader]
    lose(leader)

    def leaderless() -> str | None:
        status = others[0].status()
        led = status is not None and status["quorum"] and not (status["leader"] or "").startswith(f"{leader.address}:")
        return None if led else f"{others[0].name} has no new leader"

    until(leaderless, ELECTED_WITHIN_S)
    assert all(answers(host) == {node.short for node in whole.nodes} for host in others)
    until(whole.missing, LOST_S + BACK_WITHIN_S)


def test_a_machine_is_rebooted(whole: Inventory) -> None:
    rebooted, *others = whole.load_balancers
    started = "systemctl show --property=UserspaceTimestampMonotonic; stat -c %Y /proc/1"
    before = rebooted.run(started)
    rebooted.detached("sleep 1; systemctl reboot")
    failed, nodes = 0, {node.short for node in whole.nodes}

    def away() -> str | None:
        nonlocal failed
        failed += sum(host.answer() not in nodes for host in others)
        now = rebooted.run(started, check=False)
        return None if now and now != before else f"{rebooted.name} is not back"

    until(away, BACK_WITHIN_S)
    assert failed == 0
    until(whole.missing, WHOLE_WITHIN_S)
    assert answers(rebooted) == nodes


def test_an_upgrade_is_rolled(whole: Inventory, inventory_file: Path) -> None:
    """The same package under a later version: every load balancer is restarted, one at a time, and a majority never."""
    whole.load_balancers[0].run("dpkg-query --show gale")
    (package,) = sorted((PLAYBOOK.parents[2] / "build/deb").glob("gale_*.deb"))[-1:]
    failed: list[str] = []
    majority = len(whole.load_balancers) // 2 + 1
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen = [status for host in whole.load_balancers if (status := host.status())]
            if sum(status["quorum"] for status in seen) < majority:
                failed.append(f"{time.strftime('%X')}: {[(s['leader'], s['quorum']) for s in seen]}")
            failed.extend(f"{host.name} did not forward" for host in whole.load_balancers if not host.answer())

    with tempfile.TemporaryDirectory() as folder:
        later = later_version(package, Path(folder))
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for changes in (True, False):
                told = play(inventory_file, later)
                assert ("changed=0" not in told) is changes, told
        finally:
            ended.set()
            watcher.join()
    assert not failed
    versions = {host.run("dpkg-query --show --showformat='${Version}' gale") for host in whole.load_balancers}
    assert len(versions) == 1
    assert versions.pop().endswith("+rolled")


def later_version(package: Path, folder: Path) -> Path:
    unpacked, later = folder / "unpacked", folder / "gale_rolled.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", package, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    lines = [f"{line}+rolled" if line.startswith("Version:") else line for line in control.read_text().splitlines()]
    control.write_text("\n".join([*lines, ""]))
    subprocess.run(
        ["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", unpacked, later], check=True, capture_output=True
    )
    return later


def play(inventory_file: Path, package: Path) -> str:
    what = ["-i", str(inventory_file), str(PLAYBOOK), "--extra-vars", f"gale_package_file={package}"]
    command = ["ansible-playbook", *what]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout
