"""`make e2e-containers`: the machines of the Vagrantfile as containers, the playbooks over SSH with names resolved by
mDNS, then the tests of e2e/hosts, all of it from a seventh machine, the operator's."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.containers.base import ROOT, inside, make_base
from e2e.containers.machines import Machine, network

pytestmark = pytest.mark.timeout(3600)
NUMBERS = {"lb-0": 10, "lb-1": 11, "lb-2": 12, "node-0": 20, "node-1": 21, "node-2": 22}
CHECKOUT = "/root/gale"
OPERATOR = (
    f"cd {CHECKOUT} && export PATH=/opt/operator/bin:$PATH ANSIBLE_NOCOLOR=1"
    " PYTHONPATH=/usr/lib/gale/lib/python3.11/site-packages &&"
)
PLAY = f"{OPERATOR} ansible-playbook -i ansible/e2e-hosts.ini ansible/playbooks/"
TESTS = f"{OPERATOR} python -m pytest -v --durations=0 --durations-min=1 e2e/hosts --inventory ansible/e2e-hosts.ini"
PLAYED_WITHIN_S = 900.0
AVAHI = "[server]\nuse-ipv6=no\nallow-interfaces=eth1\n[publish]\n"


@pytest.fixture(scope="module")
def operator(package: Path) -> Iterator[Machine]:
    """The operator's machine; the six others are up, with SSH and names by mDNS, and without gale."""
    base = make_base()
    fleet = [Machine(name, number, base) for name, number in NUMBERS.items()]
    operator = Machine("operator", 2, base)
    ended = threading.Event()
    watchers = []
    with network():
        try:
            _equip(operator, package)
            key = (operator.root / "root/.ssh/id_ed25519.pub").read_text()
            for machine in fleet:
                machine.make()
                machine.write("/home/vagrant/.ssh/authorized_keys", key)
                machine.write("/etc/sudoers.d/vagrant", "vagrant ALL=(ALL) NOPASSWD: ALL\n")
            for machine in (operator, *fleet):
                machine.write("/etc/avahi/avahi-daemon.conf", AVAHI)
                machine.boot()
            for machine in fleet:
                watchers.append(threading.Thread(target=machine.boot_again, args=(ended,)))
                watchers[-1].start()
            yield operator
        finally:
            ended.set()
            for watcher in watchers:
                watcher.join()
            for machine in (operator, *fleet):
                machine.destroy()


def _equip(operator: Machine, package: Path) -> None:
    """With this checkout, the package, and a key for SSH."""
    operator.make()
    built = operator.root / f"{CHECKOUT[1:]}/build/deb"
    built.mkdir(parents=True)
    shutil.copy(package, built)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    copy = ["xargs", "-0", "cp", "--archive", "--parents", f"--target-directory={operator.root}{CHECKOUT}"]
    subprocess.run(copy, input=files, cwd=ROOT, check=True)
    inside(operator.root, f"apt-get install -y -q --no-install-recommends {CHECKOUT}/build/deb/{package.name}")
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519"]
    subprocess.run(["chroot", operator.root, *keygen], check=True)


def test_the_fleet(operator: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """One test, because each part needs the one before."""

    def done(what: str, command: str, within_s: float = PLAYED_WITHIN_S) -> str:
        began = time.monotonic()
        told = operator.run(command, within_s=within_s)
        with capfd.disabled():
            sys.stdout.write(f"\n{time.monotonic() - began:4.0f} s  {what}")
        return told

    for name in NUMBERS:
        assert operator.run(f"getent hosts {name}.local").split()[0].startswith("10.78.1.")
    for playbook in ("lb.yml", "node.yml"):
        done(playbook, PLAY + playbook)
    for playbook in ("lb.yml", "node.yml"):
        again = done(f"{playbook}, again", PLAY + playbook)
        assert again.count("changed=0") == 3, again[-4000:]
    told = done("e2e/hosts", TESTS, PLAYED_WITHIN_S * 2)
    with capfd.disabled():
        sys.stdout.write(f"\n{told[-4000:]}")
