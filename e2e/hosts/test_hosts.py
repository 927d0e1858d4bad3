"""What must hold on real machines: all up, forwarding, a node lost, the leader lost, a machine rebooted, certificates
renewed, an upgrade rolled. Names are resolved by mDNS, orders go over SSH, and requests come from the machine that runs
the tests."""

import re
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
ROOT = Path(__file__).parents[2]
PLAYBOOKS = ("lb", "node")
BACK_WITHIN_S = 120.0
ELECTED_WITHIN_S = 15.0
OUT_WITHIN_S = 15.0
RENEWED_WITHIN_S = 30.0
LOST_S = 20


def answers(host: Host, times: int = 40) -> set[str]:
    return {host.answer() for _ in range(times)}


def lose(host: Host) -> None:
    """Its private interface goes down, and up again after a while."""
    interface = host.private_interface
    host.detached(f"ip link set {interface} down; sleep {LOST_S}; ip link set {interface} up")


def test_everything_is_up(whole: Inventory) -> None:
    for host, unit in whole.units.items():
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


def test_certificates_are_renewed_without_a_restart(whole: Inventory, inventory_file: Path) -> None:
    """With so many days before their end that every certificate is near it."""

    def processes() -> list[str]:
        return [host.run(f"systemctl show --property=MainPID {unit}") for host, unit in whole.units.items()]

    def to_renew() -> str | None:
        said = "sudo journalctl --unit={unit} --since=@{began} --grep='certificate renewed'"
        old = [
            host.name
            for host, unit in whole.units.items()
            if not host.run(said.format(unit=unit, began=began), check=False)
        ]
        return f"not renewed: {old}" if old else None

    before, began = processes(), whole.load_balancers[0].run("date +%s").strip()
    for playbook in PLAYBOOKS:
        assert changes(play(inventory_file, playbook, "gale_package_renew_within=366"))
    until(to_renew, RENEWED_WITHIN_S)
    assert processes() == before
    for playbook in PLAYBOOKS:
        assert not changes(told := play(inventory_file, playbook)), told
    assert whole.missing() is None


def test_another_authority_is_refused_before_anything_changes(
    whole: Inventory, inventory_file: Path, tmp_path: Path
) -> None:
    """As when the playbook is run on a machine that lacks the authority's folder."""
    for playbook in PLAYBOOKS:
        told = play(inventory_file, playbook, f"gale_authority={tmp_path}", fails=True)
        assert "is of another authority" in told
        assert "Hand out certificates" not in told
    assert whole.missing() is None


def test_an_upgrade_is_rolled(whole: Inventory, inventory_file: Path) -> None:
    """The same package under a later version: every load balancer is restarted, one at a time, and a majority never;
    then every node. No request fails."""
    (package,) = sorted((ROOT / "build/deb").glob("gale_*.deb"))[-1:]
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
            for playbook in PLAYBOOKS:
                for new in (True, False):
                    told = play(inventory_file, playbook, f"gale_package_file={later}")
                    assert changes(told) is new, told
        finally:
            ended.set()
            watcher.join()
    assert not failed
    versions = {host.run("dpkg-query --show --showformat='${Version}' gale") for host in whole.units}
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


def play(inventory_file: Path, playbook: str, *variables: str, fails: bool = False) -> str:
    command = ["ansible-playbook", "-i", str(inventory_file), f"{ROOT}/ansible/playbooks/{playbook}.yml"]
    for variable in variables:
        command += ["--extra-vars", variable]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert (done.returncode != 0) is fails, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def changes(told: str) -> bool:
    """Whether a playbook has changed anything anywhere, by its last lines."""
    counts = re.findall(r"\bchanged=(\d+)", told)
    assert counts, told
    return any(map(int, counts))
