"""The means by which a lab is troubled: what is decided as text, and real wires and disks. The latter need root."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gale.errors import LabError
from gale.lab import disks, netns, network, wires
from gale.lab.load import LoadResult, parse
from gale.lab.options import LabOptions
from gale.lab.processes import Process
from gale.lab.store import Notes
from gale.lab.topology import Instance, Topology, is_lab_namespace

PREFIX = f"gale-f{os.getpid()}"  # several test runs may share a machine
root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and mounts need root")

WRK = """\
Running 3600s test @ http://10.77.1.10:8080/
  2 threads and 32 connections
  5612 requests in 502.11ms, 411.03KB read
Requests/sec:  11176.93
"""
WRK_WITH_ERRORS = """\
  30 requests in 1.50m, 1.1KB read
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 50000
"""


def test_what_wrk_says_is_understood() -> None:
    said = parse(WRK)
    assert (said.requests, said.errors) == (5612, 0)
    assert said.rate == pytest.approx(11_177, abs=1)
    assert parse(WRK_WITH_ERRORS) == LoadResult(30, 90.0, 54_321)


@pytest.mark.parametrize("said", ["", "unable to connect to 127.0.0.1:1 Connection refused\n"])
def test_a_wrk_that_counted_nothing_is_an_error(said: str) -> None:
    with pytest.raises(LabError, match="wrk failed"):
        parse(said)


def test_loss_is_a_rule_per_way_and_side_and_begins_with_an_empty_table() -> None:
    topology = Topology("gale", 2, 1)
    lb, other = topology.lbs
    node = topology.node_instances[0]
    rules = wires.ruleset({(lb, other): 30, (lb, node): 100, (node, lb): 0}).splitlines()
    assert rules[:3] == ["add table bridge gale_lab", "delete table bridge gale_lab", "add table bridge gale_lab"]
    dropped = [rule.removeprefix("add rule bridge gale_lab way ") for rule in rules[4:]]
    assert dropped == [
        "ip saddr 10.77.1.10 ip daddr 10.77.1.11 numgen random mod 100 <= 29 drop",
        "ip saddr 10.77.2.10 ip daddr 10.77.2.11 numgen random mod 100 <= 29 drop",
        "ip saddr 10.77.2.10 ip daddr 10.77.2.100 numgen random mod 100 <= 99 drop",
    ]


def test_what_is_mounted_below_a_directory_is_found() -> None:
    mountinfo = (
        "23 28 0:21 / /proc rw - proc proc rw\n"
        "40 28 0:33 / /run/lab/state/lb-0 rw - tmpfs none rw\n"
        "41 40 7:0 / /run/lab/state/lb\\0401 rw - ext4 /dev/loop0 rw\n"
        "42 28 0:34 / /run/lab-2/state rw - tmpfs none rw\n"
    )
    assert disks.below(Path("/run/lab"), mountinfo) == [Path("/run/lab/state/lb-0"), Path("/run/lab/state/lb 1")]


def test_notes_of_trouble_survive() -> None:
    notes = Notes(
        LabOptions(),
        {"lb-0": {"lb": Process(7, 8)}},
        {"lb-0": {"LD_PRELOAD": "some.so"}},
        {("lb-0", "lb-1"): 30},
    )
    assert Notes.from_json(notes.to_json()) == notes


@pytest.fixture
def topology() -> Iterator[Topology]:
    made = Topology(PREFIX, 2, 1)
    try:
        network.build(made)
        yield made
    finally:
        network.remove([name for name in netns.existing() if is_lab_namespace(PREFIX, name)])


def reaches(source: Instance, target: Instance, tries: int = 30) -> bool:
    """Whether a datagram from one instance arrives at another. Each way is a matter of its own.

    The kernel asks for a neighbour's address once a second, so it takes a while after a cut.
    """
    with (
        netns.inside(target.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ear,
        netns.inside(source.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as mouth,
    ):
        ear.bind((str(target.private), 99))
        ear.settimeout(0.1)
        for _ in range(tries):
            mouth.sendto(b"hello", (str(target.private), 99))
            try:
                return bool(ear.recv(99))
            except TimeoutError:
                pass
    return False


@root
def test_a_port_that_is_cut_carries_nothing_until_it_is_healed(topology: Topology) -> None:
    lb, other = topology.lbs
    wires.set_port(topology, lb, "private", carries=False)
    assert not reaches(lb, other, tries=3)
    assert not reaches(other, lb, tries=3)
    wires.set_port(topology, lb, "private", carries=True)
    assert reaches(lb, other)
    assert reaches(other, lb)
    with pytest.raises(LabError, match="no public interface"):
        wires.set_port(topology, topology.node_instances[0], "public", carries=False)


@root
def test_loss_has_a_direction_and_ends(topology: Topology) -> None:
    lb, other = topology.lbs
    assert reaches(lb, other)  # each knows the address of the other from here on
    wires.set_losses(topology, {("lb-0", "lb-1"): 100})
    assert not reaches(lb, other, tries=3)
    assert reaches(other, lb)
    wires.set_losses(topology, {})
    assert reaches(lb, other)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    if reason := "mounts need root" if os.geteuid() else disks.can_mount():
        pytest.skip(reason)
    directory = tmp_path / "state"
    directory.mkdir()
    (directory / "journal").write_text("kept")
    yield directory
    disks.unmount_below(directory)


def test_a_small_disk_keeps_what_was_there_and_is_full_until_room_is_made(state: Path) -> None:
    disks.put_on_tmpfs(state, 256)
    ballast = disks.fill(state)
    with pytest.raises(OSError, match="No space left"):
        (state / "meta").write_text("more")
    ballast.unlink()
    (state / "meta").write_text("more")
    assert (state / "journal").read_text() == "kept"


def test_power_takes_what_was_not_synced_and_nothing_else(state: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    disks.put_on_ext4(state, image)
    synced, unsynced = state / "synced", state / "unsynced"
    for file in (synced, unsynced):
        with file.open("w") as open_file:
            open_file.write("something")
            open_file.flush()
            if file is synced:
                os.fsync(open_file.fileno())
    time.sleep(0.01)
    disks.cut_power(state)
    with pytest.raises(OSError, match="error"):
        (state / "late").write_text("too late")
    disks.restore_power(state, image)
    assert synced.read_text() == "something"
    assert not unsynced.exists() or unsynced.read_text() == ""
    assert (state / "journal").read_text() in ("kept", "")  # what is copied is not synced
