"""What operators see and do: gale-ctl against real load balancers, and the one line for everything that is missing."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from e2e.waiting import until
from gale.lab.cluster import Lab


def gale(lab: Lab, instance: str, program: str, *arguments: str) -> CompletedProcess[str]:
    return lab.run(instance, [sys.executable, "-m", f"gale.cli.{program}", *arguments])


def one_line(result: CompletedProcess[str], program: str, words: str, codes: Sequence[int] = (1,)) -> None:
    assert result.returncode in codes, result
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(f"{program}: ")
    assert words in lines[0]


def test_any_load_balancer_answers_for_the_cluster(lab: Lab) -> None:
    def answers() -> list[dict[str, Any]]:
        told = [gale(lab, lb.name, "ctl", "cluster", "status", "-o", "json") for lb in lab.topology.lbs]
        return [json.loads(answer.stdout) for answer in told]

    def disagreement() -> str | None:
        asked[:] = answers()
        kinds = {json.dumps([status["leader"], status["generation"], status["nodes"]]) for status in asked}
        reached = all(lb["role"] != "unreachable" for status in asked for lb in status["load_balancers"])
        return None if len(kinds) == 1 and reached else f"one answer: there are {kinds}, all reached: {reached}"

    asked: list[dict[str, Any]] = []
    until(disagreement, within_s=20)
    for status in asked:
        lists = {"load_balancers", "nodes", "degraded"}
        assert set(status) == {"leader", "term", "quorum", "generation", "applied_index", *lists}
        assert status["quorum"]
        assert sorted(lb["role"] for lb in status["load_balancers"]) == ["follower", "follower", "leader"]
        for lb in status["load_balancers"]:
            keys = {"address", "role", "applied_index", "generation", "config_hash", "version", "reason"}
            assert set(lb) == keys | {"degraded", "refused", "attachments"}
            assert (lb["role"] == "leader") == (lb["address"] == status["leader"])
        for node in status["nodes"]:
            keys = {"id", "address", "phase", "checks", "fails", "banned_until", "weight", "drained", "reason"}
            assert set(node) == keys | {"address6", "services", "since"}
            assert set(node["checks"]) == {lb["address"] for lb in status["load_balancers"]}


def test_tables_for_people(lab: Lab) -> None:
    status = gale(lab, "lb-0", "ctl", "cluster", "status").stdout
    nodes = gale(lab, "lb-0", "ctl", "node", "list").stdout
    assert "3 of 3 nodes route" in status
    assert all(f"node-{i}" in nodes and f"10.77.2.{100 + i}" in nodes for i in range(3))


def test_orders_are_carried_out_everywhere_and_told_as_events(lab: Lab) -> None:
    def said(*arguments: str, server: str = "lb-0") -> Any:
        """At the socket, which is no part of a namespace: from the client's machine."""
        told = gale(lab, "client", "ctl", *arguments, "-o", "json", "--server", f"unix:{lab.store.state(server)}.sock")
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    until(lambda: None if said("cluster", "status")["leader"] else "a leader", within_s=10)
    leader = said("cluster", "status")["leader"]
    to = next(str(lb.private) for lb in lab.topology.lbs if str(lb.private) != leader.partition(":")[0])
    assert said("cluster", "transfer", to, "--why", "tea")["leader"] == f"{to}:9090"
    assert said("node", "weight", "node-1", "9")["weight"] == 9
    assert said("node", "ban", "node-2", "--for", "1h")["phase"] == "banned"
    assert said("node", "weight", "node-1", "own")["weight"] == 1
    assert said("node", "unban", "node-2", "--why", "it was the cable")["phase"] == "joining"
    lab.wait_routing(10)

    def disagreement() -> str | None:
        kinds = {json.dumps(said("events", "--last", "0", server=lb.name)) for lb in lab.topology.lbs}
        return None if len(kinds) == 1 else "the same events at every load balancer"

    until(disagreement, within_s=5)
    told = said("events", "--last", "0")
    assert [event["sequence"] for event in told] == list(range(told[0]["sequence"], told[-1]["sequence"] + 1))
    assert [event["index"] for event in told] == sorted(event["index"] for event in told)
    causes = [event["cause"] for event in told if event["who"].startswith("root on")]
    assert "an operator asks for it: tea" in causes
    assert "an operator lifts its ban: it was the cable" in causes
    assert f"{to}:9090" in [event["after"] for event in told if event["subject"] == "leader"]


def test_a_drain_that_is_waited_for_ends_with_the_flows_and_costs_no_request(lab: Lab) -> None:
    def told(*words: str) -> Any:
        return json.loads(gale(lab, "lb-1", "ctl", "node", *words, "-o", "json").stdout)

    with lab.traffic(rate=200) as traffic:
        until(lambda: None if sum(t.ok for t in traffic.totals.values()) >= 200 else "requests", within_s=10)
        waited = told("drain", "node-0", "--wait", "--within", "10s")
        ended_s = time.monotonic()
        until(lambda: None if traffic.between(ended_s).ok >= 100 else "requests without node-0", within_s=10)
        assert "node-0" not in traffic.between(ended_s).nodes
        assert told("undrain", "node-0")["phase"] == "routing"
    assert (waited["ended"], [part["flows"] for part in waited["load_balancers"]]) == (True, [0, 0, 0])
    assert traffic.final is not None
    assert not traffic.final.total.failed, traffic.final.total.failures


def test_services_nodes_and_configurations_are_shown(lab: Lab) -> None:
    service = gale(lab, "lb-0", "ctl", "service", "show", "default").stdout
    assert "3 of 3 route" in service
    for lb in lab.topology.lbs:
        assert f"{lb.address('public')}:8080/tcp" in service
    node = gale(lab, "lb-1", "ctl", "node", "show", "node-1").stdout
    reached = [line for line in node.splitlines() if "directly at" in line]
    assert len(reached) == 3
    assert all("10.77.2.101 directly" in line and "out of private" in line for line in reached)
    told = gale(lab, "lb-2", "ctl", "config", "diff")
    assert told.returncode == 0
    assert "state.directory" in told.stdout  # of each its own, on one machine
    assert "must agree" not in told.stdout
    shown = gale(lab, "lb-0", "ctl", "config", "show", "-o", "json").stdout
    assert {part["own"]["private_interface.net_interface_private"] for part in json.loads(shown)["load_balancers"]} == {
        "private"
    }


def test_flows_are_told_and_killed(lab: Lab) -> None:
    """Traffic that both sides end at about the same time, whose FINs meet on two processors: no flow may be left."""
    gale(lab, "lb-0", "ctl", "flows", "kill", "--all")  # those of nodes that are gone
    with lab.traffic(rate=600) as traffic:
        until(lambda: None if sum(t.ok for t in traffic.totals.values()) >= 2_000 else "more requests", within_s=20)

    def not_ended() -> str | None:
        parts = json.loads(gale(lab, "lb-0", "ctl", "flows", "count", "-o", "json").stdout)["load_balancers"]
        left = [row for part in parts for row in part["counts"] if row["state"] != "ended" and row["flows"]]
        return f"flows that have not ended: {left}" if left else None

    until(not_ended, within_s=5)
    counted = json.loads(gale(lab, "lb-0", "ctl", "flows", "count", "-o", "json").stdout)["load_balancers"]
    for part in counted:
        assert {row["node"] for row in part["counts"]} == {f"node-{number}" for number in range(3)}
    listed = json.loads(gale(lab, "lb-1", "ctl", "flows", "list", "--node", "node-1", "-o", "json").stdout)
    client = lab.topology.instance("client").address("public")
    seen = [(flow["client"], flow["service"], flow["node"]) for p in listed["load_balancers"] for flow in p["flows"]]
    assert set(seen) == {(client, "default", "node-1")}
    killed = json.loads(gale(lab, "lb-2", "ctl", "flows", "kill", "--all", "-o", "json").stdout)["load_balancers"]
    assert [part["killed"] for part in killed] == [sum(row["flows"] for row in part["counts"]) for part in counted]
    assert "node-1" not in gale(lab, "lb-0", "ctl", "flows", "count").stdout


def test_metrics_health_and_the_page(lab: Lab) -> None:
    """Of each load balancer, on its own loopback and on the private side, as the lab has it; for clients nowhere."""

    def read(instance: str, url: str) -> CompletedProcess[str]:
        return lab.run(instance, ["curl", "--silent", "--max-time", "3", "--write-out", "%{http_code}", url])

    with lab.traffic(rate=200) as traffic:
        until(lambda: None if sum(t.ok for t in traffic.totals.values()) >= 200 else "more requests", within_s=10)
    leaders = 0
    for lb in lab.topology.lbs:
        assert read(lb.name, "http://127.0.0.1:5556/readyz").stdout == "ready\n200"
        assert read(lb.name, "http://127.0.0.1:5556/healthz").stdout == "ok\n200"
        lines = read(lb.name, "http://127.0.0.1:5556/metrics").stdout.splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("gale_"))
        assert values['gale_nodes{phase="routing"}'] == values['gale_service_nodes{service="default"}'] == "3.0"
        assert float(values['gale_service_packets_total{direction="in",service="default"}']) > 0
        assert float(values['gale_packets_total{action="redirect",verdict="returned"}']) > 0
        assert values["gale_generation"] == values["gale_committed_generation"]
        leaders += values["gale_raft_leader"] == "1.0"
        assert read(lb.name, "http://127.0.0.1:5556/").stdout.startswith("<!doctype html>")
        told = json.loads(read(lb.name, "http://127.0.0.1:5556/page.json").stdout.removesuffix("200"))
        assert told["address"].startswith(f"{lb.private}:")
        assert (told["unready"], told["phases"]["routing"]) == ([], 3)
        assert told["services"][0]["in_packets"] > 0
        assert not told["may_order"]
        assert read("client", f"http://{lb.private}:5556/metrics").returncode == 7
        assert read("node-0", f"http://{lb.private}:5556/healthz").stdout == "ok\n200"
    assert leaders == 1


def test_without_a_quorum_the_last_one_answers_says_so_and_forwards(lab: Lab) -> None:
    for name in ("lb-1", "lb-2"):
        lab.kill(name)

    def status() -> dict[str, Any]:
        return dict(json.loads(gale(lab, "lb-0", "ctl", "cluster", "status", "-o", "json").stdout))

    until(lambda: "a quorum is still seen" if status()["quorum"] else None, within_s=10)
    seen = status()
    assert seen["leader"] is None
    assert [lb["role"] for lb in seen["load_balancers"]] == ["follower", "unreachable", "unreachable"]
    assert {node["phase"] for node in seen["nodes"]} == {"routing"}
    told = gale(lab, "lb-0", "ctl", "cluster", "status")
    assert "NO QUORUM" in told.stdout
    assert told.returncode == 1
    with lab.traffic(rate=200) as traffic:
        until(lambda: None if sum(t.ok for t in traffic.totals.values()) >= 200 else "more requests", within_s=10)
    assert traffic.final is not None
    assert not traffic.final.total.failed


def test_sighup_takes_the_health_policy_and_names_what_needs_a_restart(lab: Lab) -> None:
    names = [lb.name for lb in lab.topology.lbs]
    texts = {name: lab.store.config(name).read_text() for name in names}

    def reload(change: Callable[[str], str]) -> None:
        for name in names:
            lab.store.config(name).write_text(change(texts[name]))
            os.kill(lab.running(name)["lb"].pid, signal.SIGHUP)

    def hashes() -> set[str]:
        status = json.loads(gale(lab, "lb-0", "ctl", "cluster", "status", "-o", "json").stdout)
        return {lb["config_hash"] for lb in status["load_balancers"]}

    def all_but(before: set[str]) -> str | None:
        now = hashes()
        return None if len(now) == 1 and now != before else f"one other hash: {now}"

    before, fallen = hashes(), [lab.log(name).count("-> failed") for name in names]
    with lab.traffic(rate=200) as traffic:
        reload(lambda text: re.sub(r"(?m)^checks_before_routing = .*", "checks_before_routing = 2", text))
        until(lambda: all_but(before), within_s=10)
        reload(lambda text: re.sub(r"(?m)^directory = .*", 'directory = "/elsewhere"', text))
        until(lambda: None if "state.directory" in lab.log("lb-0") else "the key is named", within_s=5)
        reload(lambda text: text)
        until(lambda: None if hashes() == before else "the first hash", within_s=10)
    assert traffic.final is not None
    assert not traffic.final.total.failed
    assert [lab.log(name).count("-> failed") for name in names] == fallen


def test_a_second_load_balancer_on_the_interface_is_refused(lab: Lab) -> None:
    config = lab.store.config("lb-0")
    one_line(gale(lab, "lb-0", "lb", "--config", str(config)), "gale-lb", "another gale-lb runs on this interface")


@pytest.mark.parametrize(
    ("before", "after", "words", "codes"),
    [
        ('net_interface_private = "private"', 'net_interface_private = "eth9"', "eth9", (1,)),
        ('ip = "10.77.2.10"', 'ip = "10.77.2.99"', "none of", (2,)),
        ('checks_timeout = "1s"', 'checks_timeout = "soon"', 'checks_timeout = "soon": not a duration', (2,)),
    ],
)
def test_what_a_machine_lacks_is_one_line(
    lab: Lab, before: str, after: str, words: str, codes: tuple[int, ...]
) -> None:
    text = lab.store.config("lb-0").read_text()
    assert before in text
    config = lab.store.config("wrong")
    config.write_text(text.replace(before, after))
    one_line(gale(lab, "lb-0", "lb", "--config", str(config)), "gale-lb", words, codes)


@pytest.mark.parametrize("port", [7070, 5555, 9090])
def test_a_port_in_use_is_one_line(lab: Lab, port: int) -> None:
    """In another load balancer's namespace whose own gale-lb is stopped, so that only the port stands in the way."""
    lab.stop("lb-2")
    occupy = (
        "import socket,subprocess,sys; s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
        "s.bind((sys.argv[1],int(sys.argv[2]))); s.listen();"
        "sys.exit(subprocess.call([sys.executable,'-m','gale.cli.lb','--config',sys.argv[3]]))"
    )
    config = lab.store.config("lb-2")
    result = lab.run("lb-2", [sys.executable, "-c", occupy, "10.77.2.12", str(port), str(config)])
    one_line(result, "gale-lb", "10.77.2.12")


def test_not_root_is_one_line(lab: Lab) -> None:
    """The user is changed inside the interpreter: others may not be allowed to read the clone it is loaded from."""
    program = "import os, sys; from gale.cli.lb import main; os.setuid(65534); main(['--config', sys.argv[1]])"
    config = lab.store.config("lb-0")
    one_line(lab.run("lb-0", [sys.executable, "-c", program, str(config)]), "gale-lb", "needs root")


def test_detach_takes_the_programs_off_and_forwarding_ends(lab: Lab) -> None:
    lab.stop("lb-1")
    endpoint = lab.topology.endpoints[1]
    with lab.traffic([endpoint]) as traffic:
        until(lambda: None if traffic.totals and traffic.totals[endpoint].ok >= 50 else "more requests", within_s=10)
    assert traffic.final is not None
    assert not traffic.final.total.failed  # a gale-lb that is stopped leaves its programs where they are
    result = gale(lab, "lb-1", "lb", "--config", str(lab.store.config("lb-1")), "--detach")
    assert (result.returncode, result.stderr) == (0, "")
    left = lab.run("lb-1", ["sh", "-c", "tc qdisc show; ip link show; ls /sys/fs/bpf/gale"]).stdout
    inode = Path("/run/netns", lab.topology.instance("lb-1").namespace).stat().st_ino
    assert not [word for word in ("clsact", "xdp", f"-{inode}") if word in left], left
    with lab.traffic([endpoint]) as traffic:
        until(lambda: None if traffic.totals and traffic.totals[endpoint].failed >= 5 else "a failure", within_s=20)
    assert not traffic.totals[endpoint].ok


def test_a_node_with_a_taken_name_is_refused_and_told_why(lab: Lab) -> None:
    lab.stop("node-1")
    config = lab.store.config("node-1")
    text = config.read_text()
    config.write_text(text.replace('"node-1"', '"node-0"'))
    try:
        lab.start("node-1")
        until(lambda: None if "this name is taken by the node at 10.77.2.100" in lab.log("node-1") else "a refusal", 10)
    finally:
        lab.stop("node-1")
        config.write_text(text)
