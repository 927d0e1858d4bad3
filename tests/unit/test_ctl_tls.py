"""gale-ctl tls, as an operator types it, and the options that every question has."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gale.cli.ctl import main
from gale.pki import CA_DAYS
from gale.tls import Credentials, Identity, Role


def gale_ctl(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = gale_ctl("tls", "init", "--directory", tmp_path / "tls")
    assert made.exit_code == 0, made.output
    return tmp_path / "tls"


def test_an_authority_is_made_once(directory: Path) -> None:
    key = directory / "ca.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    again = gale_ctl("tls", "init", "--directory", directory)
    assert (again.exit_code, key.read_bytes()) == (1, before)
    assert "ca.crt: is there already" in again.stderr


@pytest.mark.parametrize(
    ("role", "name"), [("lb", "192.168.1.2"), ("node", "web-1"), ("operator", "anna"), ("reader", "grafana")]
)
def test_what_is_issued_can_be_used(directory: Path, role: str, name: str) -> None:
    issued = gale_ctl("tls", "issue", role, name, "--directory", directory)
    assert issued.exit_code == 0, issued.output
    own = Credentials(directory / "ca.crt", directory / f"{name}.crt", directory / f"{name}.key")
    assert own.who == Identity(Role(role), name)
    shown = gale_ctl("tls", "show", directory / f"{name}.crt")
    assert shown.output.startswith(f"{role} {name}, valid until {own.valid_until:%Y-%m-%d}")
    assert stat.S_IMODE((directory / f"{name}.key").stat().st_mode) == 0o600


def test_issuing_again_replaces(directory: Path) -> None:
    for _ in range(2):
        assert gale_ctl("tls", "issue", "node", "web-1", "--directory", directory).exit_code == 0
        certificate = (directory / "web-1.crt").read_bytes()
    assert gale_ctl("tls", "issue", "node", "web-1", "--days", 5, "--directory", directory).exit_code == 0
    assert (directory / "web-1.crt").read_bytes() != certificate


def test_what_is_fit_is_kept_until_its_end_is_near(directory: Path) -> None:
    lb = ("tls", "issue", "lb", "192.168.1.2", "--hostname", "lb-0.local", "--directory", directory)
    certificate, key = directory / "192.168.1.2.crt", directory / "192.168.1.2.key"

    def kept(*words: object) -> bool:
        before = certificate.read_bytes() if certificate.exists() else None
        issued = gale_ctl(*lb, "--renew-within", 60, *words)
        assert issued.exit_code == 0, issued.output
        assert issued.output.strip().endswith(": kept") is (certificate.read_bytes() == before)
        return certificate.read_bytes() == before

    assert not kept("--days", 60), "nothing was there"
    assert not kept("--days", 61), "it ends within the 60 days"
    assert kept("--days", 61)
    assert not kept("--hostname", "gale.local"), "it lacks a name"
    assert not kept(), "it has one too many"
    key.unlink()
    assert not kept(), "it has no key"
    gale_ctl("tls", "issue", "node", "web-1", "--directory", directory)
    (directory / "web-1.key").replace(key)
    assert not kept(), "the key is another's"
    for file in directory.glob("ca.*"):
        file.unlink()
    gale_ctl("tls", "init", "--directory", directory)
    assert not kept(), "its authority is another"
    assert kept()


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["lb", "lb-1"], 2, "NAME 'lb-1': a load balancer is named by its private IPv4 address"),
        (["node", "a b"], 2, "NAME 'a b': 1 to 64 letters"),
        (["node", "web-1", "--hostname", "x"], 2, "--hostname x: is for load balancers, nobody calls a node"),
        (["operator", "ca"], 2, "NAME ca: its files would replace the authority's"),
        (["operator", "taken"], 1, "taken.crt: is for node taken: move it away"),
        (["root", "anna"], 2, "invalid value for '{lb|node|operator|reader}'"),
        (["node", "web-1", "--days", str(CA_DAYS + 1)], 2, "invalid value for '--days'"),
        (["lb", "192.168.1.2", "--hostname", "ü"], 1, "cannot issue"),
    ],
)
def test_what_cannot_be_issued_is_one_line(directory: Path, words: list[str], code: int, complaint: str) -> None:
    gale_ctl("tls", "issue", "node", "taken", "--directory", directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    refused = gale_ctl("tls", "issue", *words, "--directory", directory)
    assert (refused.exit_code, complaint in refused.stderr) == (code, True), refused.stderr
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    refused = gale_ctl("tls", "issue", "node", "web-1", "--directory", tmp_path)
    assert refused.stderr.strip() == (
        f"gale-ctl: {tmp_path}/ca.crt: No such file or directory; gale-ctl tls init makes an authority"
    )


def test_show_knows_an_authority_and_what_is_none(directory: Path) -> None:
    assert gale_ctl("tls", "show", directory / "ca.crt").output.startswith("an authority, valid until 2")
    assert "not a certificate in PEM form" in gale_ctl("tls", "show", directory / "ca.key").stderr
    assert "cannot be read: No such file" in gale_ctl("tls", "show", directory / "none.crt").stderr


def test_a_certificate_to_ask_with_is_three_files(directory: Path) -> None:
    two = gale_ctl("cluster", "status", "--ca", directory / "ca.crt", "--cert", directory / "ca.crt")
    assert two.exit_code == 2
    assert "go together: give all three" in two.stderr


def test_certificates_to_ask_with_may_come_from_the_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("GALE_CA", "GALE_CERT", "GALE_KEY"):
        monkeypatch.setenv(variable, str(directory / "ca.key"))
    asked = gale_ctl("cluster", "status", "--server", "127.0.0.1:1")
    assert (asked.exit_code, "ca.key: not a certificate in PEM form" in asked.stderr) == (1, True)


def test_what_gale_says_besides_is_no_part_of_the_answer(directory: Path) -> None:
    gale_ctl("tls", "issue", "operator", "anna", "--days", 3, "--directory", directory)
    own = [
        f"--{option}={directory / file}"
        for option, file in (("ca", "ca.crt"), ("cert", "anna.crt"), ("key", "anna.key"))
    ]
    asked = gale_ctl("cluster", "status", "-o", "json", "--server", "127.0.0.1:1", *own)
    assert asked.stdout == ""
    assert asked.stderr.startswith('level=warning event="certificate expires: renew it"')
