"""What real clients do through a load balancer: curl, iperf3, uploads and downloads, and what they saw of it."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.waiting import until
from gale.lab.cluster import Lab
from gale.lab.feed import Flows
from gale.lab.options import IPERF
from gale.lab.topology import Role, endpoint

STREAMS = 10
MODES = ("l2", "l3", "l4")
VERSIONS = (4, 6)
CELLS = [(mode, version) for mode in MODES for version in VERSIONS]
CELL_NAMES = [f"{mode} IPv{version}" for mode, version in CELLS]


def at(lab: Lab, mode: str, version: int, lb: str = "lb-0") -> str:
    """Where the service of a mode is asked, through one load balancer."""
    return endpoint(lab.topology.instance(lb), lab.options.service(mode).port, version)


def nodes(lab: Lab) -> set[str]:
    return {node.name for node in lab.topology.node_instances}


def curl(lab: Lab, where: str, count: int = 100, client: str = "client") -> Counter[str]:
    """So many requests, each on a connection of its own; the nodes that answered. Fails unless each was answered."""
    words = ["curl", "--silent", "--show-error", "--fail", "--max-time", "15", "--header", "Connection: close"]
    done = lab.run(client, [*words, f"http://{where}/n[1-{count}]"], timeout_s=60)
    assert done.returncode == 0, f"{where}: {done.stderr}"
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [word for _, word in answers] == [f"n{i}" for i in range(1, count + 1)], done.stdout
    return Counter(node for node, _ in answers)


def download(lab: Lab, where: str, size: int, client: str) -> int:
    """How many bytes came."""
    words = ["curl", "--silent", "--max-time", "8", "--output", "/dev/null", "--write-out", "%{size_download}"]
    done = lab.run(client, [*words, f"http://{where}/bytes/{size}"])
    return int(done.stdout)


def upload(lab: Lab, where: str, size: int, client: str) -> int:
    """How many bytes the node says came."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "upload"
        file.write_bytes(bytes(size))
        words = ["curl", "--silent", "--max-time", "8", "--header", "Expect:", "--upload-file", str(file)]
        done = lab.run(client, [*words, f"http://{where}/up"])
    said = done.stdout.split()
    return int(said[1]) if len(said) == 2 else 0


@dataclass(frozen=True, slots=True)
class Speed:
    """Bits per second that arrived, to the node and from it, of all streams together."""

    there: float
    back: float


def iperf(lab: Lab, mode: str, version: int, seconds: int = 1) -> Speed:
    """iperf3 with ten streams, in both directions at once. Fails when a stream carried nothing."""
    service = next(s for s in lab.options.services if s.name == f"{IPERF}{mode}")
    address = dict(lab.topology.instance("lb-0").serves)[version]
    words = ["iperf3", "--client", address, "--port", str(service.port), "--parallel", str(STREAMS)]
    done = lab.run("client", [*words, "--bidir", "--time", str(seconds), "--json"], timeout_s=seconds + 20)
    said = json.loads(done.stdout)
    assert "error" not in said, said["error"]
    end = said["end"]
    assert len(end["streams"]) == 2 * STREAMS
    for stream in end["streams"]:
        assert stream["receiver"]["bytes"] or stream["sender"]["bytes"], stream
    return Speed(end["sum_received"]["bits_per_second"], end["sum_received_bidir_reverse"]["bits_per_second"])


def forget_paths(lab: Lab) -> None:
    """No machine knows any more what fits through where."""
    for instance in lab.topology.instances:
        for family in ("-4", "-6"):
            lab.run(instance.name, ["ip", family, "route", "flush", "cache"])


def learned(lab: Lab, mtu: int, version: int) -> set[str]:
    """Who has been told that no more than this fits through on the way to somebody."""
    found = set()
    for instance in lab.topology.instances:
        if instance.role in (Role.NODE, Role.CLIENT):
            shown = lab.run(instance.name, ["ip", f"-{version}", "route", "show", "cache"]).stdout
            if re.search(rf"\bmtu {mtu}\b", shown):
                found.add(instance.name)
    return found


@contextmanager
def flows(lab: Lab, where: str, count: int = 40, protocol: str = "tcp") -> Iterator[Flows]:
    """Flows that are kept, once all have been answered."""
    with lab.flows(where, count, protocol=protocol, interval_s=0.2) as kept:
        until(lambda: None if kept.last else f"the first answers at {where}", within_s=10)
        assert kept.last is not None
        assert kept.last.alive == count, f"{where}: {kept.broken}"
        yield kept


def asked(kept: Flows, since_s: float, within_s: float = 10) -> None:
    """Wait until every flow that lives was asked anew."""
    until(lambda: None if kept.asked_since(since_s) else "a round of questions", within_s)
