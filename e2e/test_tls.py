"""A cluster whose programs have certificates: who gets in at each port, and a new authority for everybody under way."""

import shutil
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from e2e.test_operating import gale, one_line
from e2e.waiting import STARTS_WITHIN_S, until
from gale.lab import certificates
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions
from gale.pki import issue, make_ca, write
from gale.tls import Identity, Role

OPTIONS = LabOptions(tls=True)
PORTS = {"checks": 7070, "API": 5555, "Raft": 9090}
# Prints the version that a handshake comes to, once the server has taken the certificate and said its first word.
SHAKE = """
import socket, ssl, sys
host, port, ca, cert, key, version = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.maximum_version = ssl.TLSVersion[version]
context.set_alpn_protocols(["h2"])
if cert:
    context.load_cert_chain(cert, key)
with socket.create_connection((host, int(port)), 5) as connection:
    with context.wrap_socket(connection, server_hostname=host) as secure:
        print(secure.version() if secure.recv(1) else "closed")
"""


def shake(lab: Lab, port: int, stem: str, version: str = "TLSv1_3", directory: Path | None = None) -> str:
    """From lb-1, whose address Raft knows, to lb-0: the version, or how it failed."""
    directory = directory or lab.store.tls
    pair = [str(directory / f"{stem}.{kind}") if stem else "" for kind in ("crt", "key")]
    host = lab.topology.instance("lb-0").private or ""
    words = [host, str(port), str(lab.store.tls / "ca.crt"), *pair, version]
    done = lab.run("lb-1", [sys.executable, "-c", SHAKE, *words])
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("port", PORTS)
def test_each_port_takes_tls_1_3_with_a_certificate_of_the_authority_and_nothing_else(
    lab: Lab, port: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    holder = Identity(Role.LOAD_BALANCER, "10.77.2.11")
    write(tmp_path, "stranger", issue(make_ca(now), holder, now))
    number = PORTS[port]
    assert shake(lab, number, "lb-1") == "TLSv1.3"
    refused = {
        "TLS 1.2": shake(lab, number, "lb-1", version="TLSv1_2"),
        "no certificate": shake(lab, number, ""),
        "another authority": shake(lab, number, "stranger", directory=tmp_path),
    }
    if port == "Raft":
        refused["a node"] = shake(lab, number, "node-0")
    assert {what: how for what, how in refused.items() if how.startswith("TLSv")} == {}
    log = "raft connection refused" if port == "Raft" else "connection refused"
    until(lambda: None if log in lab.log("lb-0") else "a line in the log", within_s=8)


def test_an_operator_is_known_by_the_certificate(lab: Lab) -> None:
    assert "3 of 3 nodes route" in gale(lab, "lb-0", "ctl", "cluster", "status").stdout
    bare = lab.run("lb-0", ["env", "-u", "GALE_CA", "-u", "GALE_CERT", "-u", "GALE_KEY", *ask()])
    one_line(bare, "gale-ctl", "it closes the connection", codes=(3,))


def ask() -> list[str]:
    return [sys.executable, "-m", "gale.cli.ctl", "cluster", "status"]


def unanswered(lab: Lab, name: str) -> str | None:
    asked = gale(lab, name, "ctl", "cluster", "status")
    return None if "3 of 3 nodes route" in asked.stdout else f"an answer: {asked.stderr or asked.stdout}"


@pytest.mark.discards
def test_a_new_authority_for_everybody_costs_no_request_and_no_check(lab: Lab, tmp_path: Path) -> None:
    """The way out when a key is stolen; renewing certificates under the same authority is a part of it."""
    tls = lab.store.tls
    certificates.issue_all(tmp_path, lab.topology)
    old, new = (tls / "ca.crt").read_bytes(), (tmp_path / "ca.crt").read_bytes()
    fallen = [lab.log(lb.name).count("-> failed") for lb in lab.topology.lbs]
    with lab.traffic(rate=200) as traffic:
        until(lambda: None if sum(t.ok for t in traffic.totals.values()) >= 100 else "requests", within_s=10)
        (tls / "ca.crt").write_bytes(old + new)
        for pair in sorted(tmp_path.glob("*.key")):
            if pair.stem != "ca":
                for file in (pair, pair.with_suffix(".crt")):
                    shutil.copy(file, tls / f"{file.name}.new")
                    (tls / f"{file.name}.new").rename(tls / file.name)
        (tls / "ca.crt").write_bytes(new)
        for lb in lab.topology.lbs:  # files are looked at once a second
            until(partial(unanswered, lab, lb.name), within_s=5)
        until(lambda: None if sum(t.ok for t in traffic.totals.values()) >= 400 else "requests", within_s=10)
    assert traffic.final is not None
    assert not traffic.final.total.failed
    assert [lab.log(lb.name).count("-> failed") for lb in lab.topology.lbs] == fallen
    for name in ("lb-1", "node-0"):  # who starts again has to get through everywhere with what is new
        lab.kill(name)
        lab.start(name)
    lab.wait_routing(STARTS_WITHIN_S)
    for lb in lab.topology.lbs:
        if lb.name != "lb-1":
            assert "certificate renewed" in lab.log(lb.name)
