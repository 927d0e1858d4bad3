"""gale-ctl support-bundle: what is in it, and that no key is."""

import json
import os
import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gale.cli.ctl_bundle import COMMANDS, without_keys
from gale.core.state import Phase
from gale.pki import make_ca
from gale.rpc.client import Server
from tests.raft.trio import free_addresses
from tests.rpc.test_conversation import ADDRESS, eventually, load_balancer, node
from tests.rpc.test_dataplane import ctl

ASKED = {"status.json", "counters.json", "configuration.json", "services.json", "events.json"}
FOUND = {"versions.json", "README.txt", "interfaces.txt", "journal.txt"}


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A private key, which the journal of this machine and its systemd have caught: one whole, one cut off."""
    pem = make_ca(datetime.now(UTC)).key.decode()
    log = tmp_path / "log"
    log.write_text("".join(f"2026-11-23 lb-0 gale-lb[7]: {line}\n" for line in ["before", *pem.splitlines(), "after"]))
    cut = tmp_path / "cut"
    cut.write_text("".join(f"{line}\n" for line in ["before", *pem.splitlines()[:-1]]))
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, file in (("journalctl", log), ("systemctl", cut)):
        program = programs / name
        program.write_text(f"#!/bin/sh\ncat {file}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return pem


def texts(file: Path) -> dict[str, str]:
    """Name -> text, of a bundle that has one folder."""
    with tarfile.open(file) as bundle:
        return {
            member.name.partition("/")[2]: stream.read().decode()
            for member in bundle.getmembers()
            if (stream := bundle.extractfile(member))
        }


async def test_a_bundle_has_what_a_report_needs_and_no_key(tmp_path: Path, key: str) -> None:
    file = tmp_path / "bundle.tar.gz"
    async with load_balancer() as box, node(box.nodes):
        await eventually(lambda: box.phase() is Phase.ROUTING)
        said = await ctl(box.api, "support-bundle", "--file", str(file))
        assert "look into it before you send it" in said
        assert "File exists" in await ctl(box.api, "support-bundle", "--file", str(file), code=1)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    held = texts(file)
    assert held.keys() >= ASKED | FOUND
    assert json.loads(held["status.json"])["leader"] == ADDRESS
    assert json.loads(held["counters.json"])[0]["seconds"] > 0
    assert {"gale", "kernel", "python"} <= json.loads(held["versions.json"]).keys()
    assert "node web" in held["events.json"]
    assert "lo:" in held["interfaces.txt"]
    assert "gale-lb[7]: before" in held["journal.txt"]
    assert "gale-lb[7]: after" in held["journal.txt"]
    lines = [line for line in key.splitlines() if not line.startswith("---")]
    assert lines
    for name, text in held.items():
        assert not [line for line in lines if line in text], name
    for name in COMMANDS.keys() - held.keys():
        assert f"{name}: missing: " in held["README.txt"]


async def test_where_nobody_answers_there_is_a_bundle_all_the_same(tmp_path: Path) -> None:
    file, nowhere = tmp_path / "bundle.tar.gz", Server(free_addresses(1)[0])
    said = await ctl(nowhere, "support-bundle", "--file", str(file), "-o", "yaml")
    assert "no connection" in said
    held = texts(file)
    assert not held.keys() & ASKED
    assert "status.json: missing: " in held["README.txt"]


@pytest.mark.parametrize("kind", ["", "EC ", "RSA ", "ENCRYPTED ", "OPENSSH "])
def test_keys_of_every_kind_are_left_out_and_certificates_are_not(kind: str) -> None:
    begin, end = f"-----BEGIN {kind}PRIVATE KEY-----", f"-----END {kind}PRIVATE KEY-----"
    text = f"a\n{begin}\nc2VjcmV0\n{end}\nb\n-----BEGIN CERTIFICATE-----\nb3Blbg==\n"
    assert without_keys(text) == "a\n[a private key was here: left out]\nb\n-----BEGIN CERTIFICATE-----\nb3Blbg==\n"


def test_a_key_whose_beginning_is_cut_off_is_left_out() -> None:
    text = "lb-0: c2VjcmV0\nlb-0: -----END PRIVATE KEY-----\nlb-0: b\n"
    assert without_keys(text) == "[a private key was here: left out]\nlb-0: b\n"
