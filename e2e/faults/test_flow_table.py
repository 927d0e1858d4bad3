"""The flow table of l4 under attack, and flows that could be taken for each other."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.plane import clients
from e2e.plane.clients import at
from e2e.waiting import until
from gale.lab import netns
from gale.lab.cluster import Lab
from gale.lab.feed import Flows, python
from gale.lab.flows import Broken
from gale.lab.options import LabOptions, server_arguments

FLOOD = Path(__file__).with_name("flood.py")
SMALL_TABLE = LabOptions(load_balancers=1, nodes=1, ipv6=True, flows=2048)
USUAL_TABLE = LabOptions(load_balancers=1, nodes=1)
PLACES_PER_FLOW = 4
ESTABLISHED = 1_000
LIVE_SHARE = 0.99
TWINS = 400
PORTS = 64_512  # those of one node that are not well-known ones
CONNECTIONS = 15_000  # of one process: machines allow 20,000 open files and more
OPEN_WITHIN_S, OPEN_ALL_WITHIN_S = 15, 240
RECOVERED_WITHIN_S = 5


def verdicts(lab: Lab) -> dict[str, int]:
    """Packets per verdict so far, at lb-0."""
    words = ["-m", "gale.cli.ctl", "counters", "--interval", "0", "-o", "json"]
    done = lab.run("lb-0", [sys.executable, *words])
    assert done.returncode == 0, done.stderr
    (lb,) = json.loads(done.stdout)["load_balancers"]
    return {name: count["packets"] for name, count in lb["verdicts"].items()}


def kernel_warnings(since_s: float) -> list[str]:
    """What the kernel has complained of since a monotonic time."""
    done = subprocess.run(["/usr/bin/dmesg", "--raw"], capture_output=True, text=True, timeout=10, check=True)
    lines = [line.partition("[")[2].partition("] ") for line in done.stdout.splitlines()]
    told = [text for stamp, _, text in lines if stamp.strip().replace(".", "", 1).isdigit() and float(stamp) >= since_s]
    return [text for text in told if any(word in text for word in ("WARNING", "BUG:", "Oops", "lockup", "Call Trace"))]


def flood(lab: Lab, where: str, count: int, acks: float) -> int:
    """SYNs a second."""
    words = [sys.executable, "-P", str(FLOOD), f"--at={where}", f"--count={count}", f"--acks={acks}"]
    done = lab.run("client", words, timeout_s=60 + count / 10_000)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def give_addresses(lab: Lab, count: int) -> list[str]:
    """The client's addresses, its own one and further ones."""
    own = str(lab.topology.client.public)
    more = [f"{own.rpartition('.')[0]}.{201 + i}" for i in range(count - 1)]
    for address in more:
        command = ["ip", "address", "replace", f"{address}/24", "dev", "public"]
        netns.inside(lab.topology.client.namespace, partial(subprocess.run, command, check=True, timeout=10))
    return [own, *more]


@pytest.mark.parametrize("version", [4, pytest.param(6, marks=pytest.mark.long_form)])
@pytest.mark.lab(SMALL_TABLE)
def test_a_flood_does_not_push_out_who_was_there(lab: Lab, results: Results, long: bool, version: int) -> None:
    where, places = at(lab, "l4", version), SMALL_TABLE.flows * PLACES_PER_FLOW
    memory = scenes.usage(lab, "lb-0").resident
    began_s = time.monotonic()
    with lab.flows(where, ESTABLISHED) as kept:  # a handful may share a set of places that is too small for them
        until(lambda: None if kept.last else "the first answers", OPEN_WITHIN_S)
        clients.asked(kept, time.monotonic())
        rate = flood(lab, where, (100 if long else 10) * places, acks=0.5)
        clients.asked(kept, time.monotonic())
    assert kept.last is not None
    grown = scenes.usage(lab, "lb-0").resident - memory
    new = sum(clients.curl(lab, where, 50).values())
    warnings = kernel_warnings(began_s)
    results.judge(
        "21 SYN flood",
        f"IPv{version}: {100 if long else 10} times the table's {places} places, half with forged ACKs, {rate}/s",
        f"≥ {LIVE_SHARE:.0%} of {ESTABLISHED} established flows live, new ones open, 0 kernel warnings",
        f"{kept.last.alive} live, {new} of 50 new ones answered, {len(warnings)} kernel warnings,"
        f" gale-lb grew by {grown // 1024} KiB",
        kept.last.alive >= LIVE_SHARE * ESTABLISHED and not kept.last.crossed and new == 50 and not warnings,
    )


@pytest.mark.lab(USUAL_TABLE)
def test_clients_with_the_same_ports_are_never_mixed_up(lab: Lab, results: Results) -> None:
    """All at one node, where their flows differ in nothing but the port that gale gives them."""
    sources = give_addresses(lab, 3)
    before_s = time.monotonic()
    with lab.flows(at(lab, "l4", 4), len(sources) * TWINS, sources=sources, first_port=20_000) as kept:
        until(lambda: None if kept.last else "the first answers", OPEN_WITHIN_S)
        clients.asked(kept, time.monotonic())
    assert kept.last is not None
    results.judge(
        "22 the same source ports",
        f"{len(sources)} clients with {TWINS} ports, the same ones, to one node",
        "all open, 0 answers to another",
        f"{kept.last.alive} open, {kept.last.crossed} crossed, after {kept.last.ended_s - before_s:.1f} s",
        kept.last.alive == len(sources) * TWINS and not kept.last.crossed,
    )


@contextmanager
def more_servers(lab: Lab, many: int) -> Iterator[None]:
    """On the node, at the ports of its own one, which shares them."""
    command = lab.command("node-0", python("gale.lab.server", "--name", "node-0", *server_arguments(lab.options)))
    port = lab.options.service("l4").target_port

    def missing() -> str | None:
        listening = lab.run("node-0", ["ss", "-Hltn", f"sport = :{port}"]).stdout.splitlines()
        return None if len(listening) > many else f"{many + 1} servers: {listening}"

    with ExitStack() as stack:
        for _ in range(many):
            stack.callback(stack.enter_context(subprocess.Popen(command)).terminate)
        until(missing, OPEN_WITHIN_S)
        yield


@pytest.mark.long_form
@pytest.mark.lab(USUAL_TABLE)
def test_ports_run_out_and_are_given_again(lab: Lab, results: Results) -> None:
    sources, where = give_addresses(lab, 3), at(lab, "l4", 4)
    groups = -(-(PORTS + 3_000) // CONNECTIONS)
    each = (PORTS + 3_000) // groups
    with more_servers(lab, groups - 1), ExitStack() as stack:
        kept = [
            stack.enter_context(lab.flows(where, each, sources=sources, interval_s=5.0, seed=str(group)))
            for group in range(groups)
        ]
        until(lambda: None if all(group.last for group in kept) else "an attempt at each", OPEN_ALL_WITHIN_S)
        opened = sum(group.rounds[0].opened for group in kept)
        refused = verdicts(lab).get("no_port", 0)
        for group in kept:
            clients.asked(group, time.monotonic(), within_s=60)
    crossed = sum(group.last.crossed for group in kept if group.last)
    broken = [broken for group in kept for broken in later(group)]
    began_s = time.monotonic()
    with lab.flows(where, 5_000, sources=sources) as again:
        until(lambda: None if again.last else "the flows after", OPEN_ALL_WITHIN_S)
    recovered_s = time.monotonic() - began_s
    alive, refusals = again.rounds[0].alive, Counter(broken.kind for broken in again.broken)
    results.judge(
        "22 ports run out",
        f"{groups * each} connections to one node, then 5000 more once these are closed",
        f"no answer to another, none broken, refusals are counted, recovery ≤ {RECOVERED_WITHIN_S} s",
        f"{opened} opened, no_port {refused}, {crossed} crossed, {len(broken)} broken;"
        f" then {alive} of 5000 after {recovered_s:.1f} s {dict(refusals) or ''}",
        not crossed
        and not broken
        and opened > 0.9 * PORTS
        and refused > 0
        and alive == 5_000
        and recovered_s <= RECOVERED_WITHIN_S,
    )


def later(kept: Flows) -> list[Broken]:
    """What broke of the flows that had been open."""
    return [broken for broken in kept.broken if broken.node]
