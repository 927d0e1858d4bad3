"""What gale-ctl says of the data plane, held against what real packets then do."""

import itertools
import json
import subprocess
import sys
from typing import Any

import pytest

from e2e.plane import clients
from e2e.plane.clients import CELL_NAMES, CELLS, at
from e2e.waiting import until
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions

OPTIONS = LabOptions(1, modes=("l4", "l2", "l3"), ipv6=True, udp=True, iperf=True, far_mtu=1300)
REQUESTS = 30
PORTS = itertools.count(600)
"""Of the client, below those that the kernel gives; one is not free again for a minute."""
SETTLED_WITHIN_S = 10
LEARNT_WITHIN_S = 30  # LabOptions.learning_time, and what compiles explanations the first time

cells = pytest.mark.parametrize(("mode", "version"), CELLS, ids=CELL_NAMES)


def ctl(lab: Lab, *words: str) -> "subprocess.CompletedProcess[str]":
    return lab.run("lb-0", [sys.executable, "-m", "gale.cli.ctl", *words, "-o", "json"])


def part(lab: Lab, *words: str) -> dict[str, Any]:
    """What lb-0 says of itself."""
    done = ctl(lab, *words)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["load_balancers"]
    assert answer["error"] == ""
    return dict(answer)


def endpoint(lab: Lab, name: str, interface: str, version: int, port: int | str) -> str:
    address = lab.topology.instance(name).address(interface, version)
    return f"{address}:{port}" if version == 4 else f"[{address}]:{port}"


def request(lab: Lab, where: str, port: int) -> str:
    """From this port of the client; the node that answered."""
    words = ["curl", "--silent", "--show-error", "--max-time", "5", "--local-port", str(port), f"http://{where}/q"]
    done = lab.run("client", words)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def settled(lab: Lab) -> dict[str, Any]:
    """What is counted once the last packets of the test before have come."""
    readings = [part(lab, "counters", "--interval", "0")]

    def moving() -> str | None:
        readings.append(part(lab, "counters", "--interval", "0"))
        return None if readings[-1]["services"] == readings[-2]["services"] else "the counters to stand still"

    until(moving, SETTLED_WITHIN_S)
    return readings[-1]


def name(lab: Lab, mode: str) -> str:
    return lab.options.service(mode).name


def explained(lab: Lab, client: str, where: str) -> dict[str, Any]:
    """Once the slot has learnt, if it has moved for the test before: until then who is not known there is taken for an
    older connection."""
    answers = []

    def learning() -> str | None:
        answers.append(part(lab, "explain", client, where))
        return "a slot that has learnt" if answers[-1]["verdict"] == "stayed" else None

    until(learning, LEARNT_WITHIN_S)
    return answers[-1]


@pytest.mark.leaves_whole
@cells
def test_what_is_explained_is_what_happens_and_leaves_no_trace(lab: Lab, mode: str, version: int) -> None:
    where, port = at(lab, mode, version), next(PORTS)
    client = endpoint(lab, "client", "public", version, port)
    first, before = explained(lab, client, where), settled(lab)
    assert part(lab, "explain", client, where) == first
    after = part(lab, "counters", "--interval", "0")
    assert (after["services"], after["nodes"]) == (before["services"], before["nodes"])
    verdicts = ("opened", "forwarded", "bridged", "tunnelled", "stayed", "no_flow")
    assert [after["verdicts"][verdict] for verdict in verdicts] == [before["verdicts"][verdict] for verdict in verdicts]

    expected = {"l2": "bridged", "l3": "tunnelled", "l4": "opened"}[mode]
    assert (first["verdict"], first["action"], first["side"]) == (expected, "redirect", "public")
    assert (first["mode"], first["service"], first["opening"]) == (mode, name(lab, mode), mode == "l4")
    assert first["slot"] is not None
    assert (first["flow"], first["interface"]) == (None, "private")
    names = [header["name"] for header in first["headers"]]
    outer = ["ipv4"] if mode == "l3" else []
    assert names == ["ethernet", *outer, f"ipv{version}", "tcp"]
    node = lab.topology.instance(first["node"])
    assert node.address("private") == first["node_address"]
    if mode != "l2":
        assert first["headers"][1]["fields"]["destination"] == node.address("private", version if mode == "l4" else 4)
    assert request(lab, where, port) == first["node"]


@pytest.mark.leaves_whole
@pytest.mark.parametrize("version", [4, 6])
def test_a_flow_that_is_known_is_explained_as_such_in_both_directions(lab: Lab, version: int) -> None:
    where = at(lab, "l4", version)
    with clients.flows(lab, where, 1):
        port = local_port(lab, where)
        known = part(lab, "explain", endpoint(lab, "client", "public", version, port), where)
        assert (known["verdict"], known["opening"], known["flow"]["state"]) == ("forwarded", False, "established")
        assert known["flow"]["quiet_s"] < 60
        ports = known["headers"][-1]["fields"]
        assert int(ports["source_port"]) == known["flow"]["source_port"]
        node = endpoint(lab, known["node"], "private", version, ports["destination_port"])
        own = endpoint(lab, "lb-0", "private", version, ports["source_port"])
        back = part(lab, "explain", node, own)
        assert (back["verdict"], back["side"], back["service"]) == ("returned", "private", name(lab, "l4"))
        headers = {header["name"]: header["fields"] for header in back["headers"]}
        assert headers["tcp"]["destination_port"] == str(port)


def local_port(lab: Lab, where: str) -> int:
    """Of the client's one connection there."""
    shown = lab.run("client", ["ss", "-tnH", "state", "established", "dst", where]).stdout
    (line,) = shown.splitlines()
    return int(line.split()[2].rpartition(":")[2])


@pytest.mark.leaves_whole
def test_who_is_no_service_is_told_so(lab: Lab) -> None:
    told = part(lab, "explain", "192.0.2.1:1000", "192.0.2.2:80")
    assert (told["verdict"], told["action"], told["service"], told["headers"]) == ("no_service", "pass", "", [])


@pytest.mark.leaves_whole
@cells
def test_requests_are_counted_by_service_and_node(lab: Lab, mode: str, version: int) -> None:
    before = part(lab, "counters", "--interval", "0")
    answered = clients.curl(lab, at(lab, mode, version), REQUESTS)

    def counted() -> str | None:
        now = part(lab, "counters", "--interval", "0")

        def growth(kind: str, of: str) -> dict[str, int]:
            old = before[kind].get(of, {})
            return {key: count - old.get(key, 0) for key, count in now[kind][of].items() if key != "per_s"}

        grown = growth("services", name(lab, mode))
        by_node = {node: growth("nodes", node) for node in answered}
        if grown["flows"] < REQUESTS or (mode == "l4" and grown["flows"] > REQUESTS):
            return f"{REQUESTS} flows of the service: {grown}"
        if any(by_node[node]["flows"] < count for node, count in answered.items()):
            return f"{answered} flows of nodes: {by_node}"
        # at least a SYN, two ACKs, the request and a FIN each way; answers of l2 and l3 pass no load balancer
        if grown["in_packets"] < 4 * REQUESTS or grown["in_bytes"] < 40 * grown["in_packets"]:
            return f"packets in: {grown}"
        if (grown["out_packets"] >= 3 * REQUESTS) != (mode == "l4"):
            return f"packets out: {grown}"
        return None

    until(counted, within_s=5)


def test_what_somebody_else_changed_is_found_and_mended(lab: Lab) -> None:
    """A load balancer looks by itself once a minute, and then mends what a question would have found."""
    assert part(lab, "dataplane", "verify")["differences"] == []
    before = len(lab.log("lb-0"))
    for _ in range(2):
        done = lab.run("lb-0", ["ip", "link", "set", "dev", "public", "xdp", "off"])
        assert done.returncode == 0, done.stderr
        found = ctl(lab, "dataplane", "verify")
        (told,) = json.loads(found.stdout)["load_balancers"]
        if told["differences"]:
            break
        assert "mended" in lab.log("lb-0")[before:]
    assert found.returncode == 1
    assert len(told["differences"]) == 1
    assert "public" in told["differences"][0]
    assert part(lab, "dataplane", "verify")["differences"] == []
    assert set(clients.curl(lab, at(lab, "l2", 4), 50)) == clients.nodes(lab)
