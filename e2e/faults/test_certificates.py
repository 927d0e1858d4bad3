"""Wrong certificates at every port, and a node that poses as another: nobody gets in, and the log is not flooded."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from e2e.faults import scenes
from e2e.faults.results import Results
from e2e.test_tls import shake
from e2e.waiting import until
from gale.lab import certificates, view
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions
from gale.lab.processes import entering
from gale.pki import Pair, issue, make_ca, write
from gale.tls import Identity, Role

OPTIONS = LabOptions(tls=True)
PORTS = {"checks": 7070, "api": 5555, "raft": 9090}
# Sends one check of the node that it is told, with a certificate that it is told, and prints what it is answered.
CHECK = """
import asyncio, json, sys
from pathlib import Path
from gale.errors import RemoteError
from gale.rpc.client import Server, node_link
from gale.rpc.v1 import node_pb2 as pb
from gale.tls import Credentials

async def main(server, name, *files):
    async def checks():
        yield pb.Check(node=name, weight=1, reports_to=3, condition=pb.CONDITION_SERVING)
        await asyncio.sleep(1)
    try:
        async with node_link(Server(server, Credentials(*map(Path, files)))) as link:
            async for reply in link.checks(checks()):
                print(json.dumps([reply.phase, reply.refusal]))
                return
        print(json.dumps(["ended", ""]))
    except RemoteError as error:
        print(json.dumps(["error", str(error)]))

asyncio.run(main(*sys.argv[1:]))
"""


def wrong_certificates(lab: Lab, directory: Path) -> None:
    now = datetime.now(UTC)
    tls = lab.store.tls
    ca = Pair((tls / "ca.crt").read_bytes(), (tls / "ca.key").read_bytes())
    lb = Identity(Role.LOAD_BALANCER, str(lab.topology.instance("lb-1").private))
    write(directory, "stranger", issue(make_ca(now), lb, now))
    write(directory, "expired", issue(ca, lb, now - timedelta(days=60), days=30))


def shake_all(lab: Lab, port: int, directory: Path) -> dict[str, str]:
    """What comes of each wrong certificate at a port of lb-0."""
    tried = {
        "none": shake(lab, port, ""),
        "another authority's": shake(lab, port, "stranger", directory=directory),
        "an expired one": shake(lab, port, "expired", directory=directory),
        "TLS 1.2": shake(lab, port, "lb-1", version="TLSv1_2"),
    }
    if port == PORTS["raft"]:
        tried["a node's"] = shake(lab, port, "node-0")
        tried["an operator's"] = shake(lab, port, "operator")
    return tried


def test_wrong_certificates_are_refused_at_every_port(lab: Lab, results: Results, long: bool, tmp_path: Path) -> None:
    wrong_certificates(lab, tmp_path)
    before, began_s = refusals(lab), time.monotonic()
    accepted = []
    for name, port in PORTS.items():
        accepted += [f"{what} at {name}" for what, how in shake_all(lab, port, tmp_path).items() if how[:4] == "TLSv"]
        assert shake(lab, port, "lb-1") == "TLSv1.3"
        at = f"{lab.topology.instance('lb-0').private}:{port}"
        for kind in ("bytes", "gadgets"):  # plain, where TLS is spoken
            attack = [sys.executable, "-P", str(scenes.ATTACKS), f"--kind={kind}", f"--at={at}"]
            place = lab.topology.instance("lb-1").namespace
            command = entering(place, [*attack, f"--count={20_000 if long else 300}"])
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    until(lambda: None if refusals(lab) > before else "a line in the log", within_s=10)
    lines, seconds = refusals(lab) - before, time.monotonic() - began_s
    with lab.watch(0.1, local=True) as watch:
        scenes.until_level(watch, lab.servers, within_s=10)
    results.judge(
        "16 wrong certificates",
        "at every port: none, a stranger's, an expired one, TLS 1.2, plain bytes; on Raft a node's and an operator's",
        "0 accepted; at most a line a second and port in the log",
        f"accepted: {accepted or 'none'}; {lines} lines in {seconds:.1f} s",
        not accepted and lines <= len(PORTS) * (seconds + 1),
    )


def refusals(lab: Lab) -> int:
    return sum("refused" in line for line in lab.log("lb-0").splitlines())


def test_a_node_speaks_for_itself_only(lab: Lab, results: Results) -> None:
    with lab.watch(0.1) as watch:
        until(lambda: scenes.routing(lab, watch), within_s=10)
        began_s = time.monotonic()
        files = certificates.files(lab.store.tls, "node-0")
        server = f"{lab.topology.instance('lb-0').private}:{PORTS['checks']}"
        answers = {}
        for name in ("node-1", "node-9", "node-0"):
            command = [sys.executable, "-P", "-c", CHECK, server, name, *files.values()]
            done = lab.run("node-0", command)
            answers[name] = json.loads(done.stdout or json.dumps(["error", done.stderr]))
        time.sleep(0.5)
        known = {node for report in watch.since(began_s) for node in view.phases(report)}
        until(lambda: scenes.routing(lab, watch), within_s=10)
    taken = [name for name, (phase, refusal) in answers.items() if phase != "error" and not refusal]
    results.judge(
        "16 a node that poses as another",
        "node-0's certificate, checks in the names of node-1 and of one that is not there",
        "only its own are taken",
        f"taken: {taken}; known nodes: {sorted(known)}",
        taken == ["node-0"] and "node-9" not in known,
    )
