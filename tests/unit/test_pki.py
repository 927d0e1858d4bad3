"""Certificates as gale makes them, and as it takes them: real files, real keys, real handshakes in memory."""

import os
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from structlog.testing import capture_logs

from gale.errors import HostError
from gale.pki import Pair, issue, make_ca, write
from gale.tls import Credentials, Identity, Role, identity

NOW = datetime.now(UTC)
LB = Identity(Role.LOAD_BALANCER, "192.168.1.2")
NODE = Identity(Role.NODE, "web-1")


@pytest.fixture(scope="module")
def ca() -> Pair:
    return make_ca(NOW)


def credentials(directory: Path, ca: Pair, who: Identity, pair: Pair | None = None) -> Credentials:
    """Files in `directory`, and what gale makes of them; looked at again whenever they are asked for."""
    write(directory, "ca", ca)
    write(directory, "own", pair or issue(ca, who, NOW))
    return Credentials(directory / "ca.crt", directory / "own.crt", directory / "own.key", look_again_s=0)


def der(pair: Pair) -> bytes:
    return x509.load_pem_x509_certificate(pair.certificate).public_bytes(Encoding.DER)


def shake(client: ssl.SSLContext, server: ssl.SSLContext, called: str) -> tuple[str, Identity, Identity]:
    """A handshake in memory: the protocol's version, and who the client and the server turned out to be."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=called),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    theirs = [end.getpeercert(True) for end in ends]
    assert theirs[0]
    assert theirs[1]
    return ends[0].version() or "", identity(theirs[1]), identity(theirs[0])


@pytest.mark.parametrize("who", [LB, NODE, Identity(Role.OPERATOR, "anna"), Identity(Role.READER, "grafana")])
def test_a_certificate_says_whom_it_names(ca: Pair, who: Identity) -> None:
    assert identity(der(issue(ca, who, NOW))) == who


@pytest.mark.parametrize(
    ("role", "name"), [("lb", "lb-1"), ("lb", "1.2.3"), ("lb", "::1"), ("node", ""), ("node", "a b")]
)
def test_a_name_out_of_form_is_nobodys(role: str, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Identity(Role(role), name)


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["spiffe://x/y"],
        ["gale:node"],
        ["gale:root:anna"],
        ["gale:lb:lb-1"],
        ["gale:node:a\nb"],
        ["gale:node:web-1", "gale:operator:web-1"],
    ],
)
def test_a_certificate_with_other_names_is_not_one_of_gales(uris: list[str]) -> None:
    with pytest.raises(ValueError, match="not a certificate of gale"):
        identity(der(self_made(uris)))


@pytest.mark.parametrize("rubbish", [b"", b"\x30", b"\x00" * 500])
def test_rubbish_is_not_a_certificate(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match="not a certificate of gale"):
        identity(rubbish)


def self_made(uris: list[str]) -> Pair:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - timedelta(1)).not_valid_after(NOW + timedelta(1))
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris] or [x509.DNSName("x")])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return Pair(certificate.public_bytes(Encoding.PEM), b"")


def test_both_sides_learn_who_the_other_is_over_tls_1_3(ca: Pair, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    server, client = credentials(tmp_path, ca, LB), credentials(tmp_path / "node", ca, NODE)
    for called in ("192.168.1.2", "127.0.0.1", "localhost"):
        assert shake(client.client_context(), server.server_context(), called) == ("TLSv1.3", NODE, LB)


def test_a_server_is_called_by_an_address_of_its_certificate(ca: Pair, tmp_path: Path) -> None:
    lb = credentials(tmp_path, ca, LB)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(lb.client_context(), lb.server_context(), "192.168.1.3")


def test_a_host_name_is_an_address_too(ca: Pair, tmp_path: Path) -> None:
    lb = credentials(tmp_path, ca, LB, issue(ca, LB, NOW, hostnames=["lb-1.example.org"]))
    assert shake(lb.client_context(), lb.server_context(), "lb-1.example.org")[0] == "TLSv1.3"


def test_a_nodes_certificate_is_fit_for_no_server(ca: Pair, tmp_path: Path) -> None:
    node = credentials(tmp_path, ca, NODE)
    client = node.client_context()
    client.check_hostname = False
    with pytest.raises(ssl.SSLError, match=r"certificate purpose"):
        shake(client, node.server_context(), "x")


@pytest.mark.parametrize("which", ["another authority", "no certificate", "expired", "TLS 1.2"])
def test_a_server_refuses(ca: Pair, tmp_path: Path, which: str) -> None:
    server = credentials(tmp_path, ca, LB).server_context()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(tmp_path / "ca.crt")
    match which:
        case "another authority":
            write(tmp_path, "client", issue(make_ca(NOW), NODE, NOW))
        case "expired":
            write(tmp_path, "client", issue(ca, NODE, NOW - timedelta(days=400)))
        case _:
            write(tmp_path, "client", issue(ca, NODE, NOW))
    if which != "no certificate":
        client.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    if which == "TLS 1.2":
        client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(client, server, "192.168.1.2")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda d, ca: (d / "ca.crt").unlink(), r"ca\.crt: cannot be read: No such file"),
        (lambda d, ca: (d / "own.crt").write_text("x"), r"own\.crt: not a certificate in PEM form"),
        (lambda d, ca: (d / "own.key").write_text("x"), r"own\.key: not a private key in PEM form"),
        (lambda d, ca: (d / "own.key").write_bytes(issue(ca, LB, NOW).key), r"own\.key: is not the key of .*own\.crt"),
        (lambda d, ca: (d / "own.key").write_bytes(locked(ca)), r"own\.key: has a passphrase"),
        (lambda d, ca: (d / "own.crt").write_bytes(ca.certificate), r"own\.crt: not a certificate of gale"),
        (lambda d, ca: (d / "ca.crt").write_bytes(make_ca(NOW).certificate), r"own\.crt: was not issued by .*ca\.crt"),
        (lambda d, ca: write(d, "own", issue(ca, LB, NOW - timedelta(days=366))), r"own\.crt: expired on 2"),
        (
            lambda d, ca: write(d, "own", issue(ca, LB, NOW + timedelta(days=2))),
            r"own\.crt: valid from 2.* clock right",
        ),
    ],
)
def test_unfit_files_are_one_line(
    ca: Pair, tmp_path: Path, break_it: Callable[[Path, Pair], object], words: str
) -> None:
    credentials(tmp_path, ca, LB)
    break_it(tmp_path, ca)
    with pytest.raises(HostError, match=words) as refusal:
        Credentials(tmp_path / "ca.crt", tmp_path / "own.crt", tmp_path / "own.key")
    assert "\n" not in str(refusal.value)


def locked(ca: Pair) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def test_new_files_are_taken_without_a_restart(ca: Pair, tmp_path: Path) -> None:
    own = credentials(tmp_path, ca, LB)
    before, context = own.valid_until, own.server_context()
    assert own.server_context() is context
    write(tmp_path, "own", issue(ca, LB, NOW, days=700))
    with capture_logs() as lines:
        assert own.server_context() is not context
    assert own.valid_until > before
    assert own.pem()[1] == (tmp_path / "own.crt").read_bytes()
    assert [line["event"] for line in lines] == ["certificate renewed"]


@pytest.mark.parametrize("who", [LB, Identity(Role.LOAD_BALANCER, "192.168.1.3")])
def test_broken_new_files_leave_the_last_good_ones_in_use_and_are_said_once(
    ca: Pair, tmp_path: Path, who: Identity
) -> None:
    own = credentials(tmp_path, ca, LB)
    context, pem = own.server_context(), own.pem()
    if who == LB:
        (tmp_path / "own.crt").write_text("x")
    else:
        write(tmp_path, "own", issue(ca, who, NOW))
    with capture_logs() as lines:
        for _ in range(3):
            assert own.server_context() is context
            assert own.pem() == pem
    assert [line["log_level"] for line in lines] == ["error"]
    write(tmp_path, "own", issue(ca, LB, NOW))
    assert own.server_context() is not context


def test_files_are_looked_at_once_a_second(ca: Pair, tmp_path: Path) -> None:
    credentials(tmp_path, ca, LB)
    own = Credentials(tmp_path / "ca.crt", tmp_path / "own.crt", tmp_path / "own.key", look_again_s=60)
    context = own.server_context()
    write(tmp_path, "own", issue(ca, LB, NOW))
    assert own.server_context() is context


def test_an_authority_is_replaced_by_way_of_trusting_both(ca: Pair, tmp_path: Path) -> None:
    """Old and new in ca.crt: certificates of either are taken."""
    new = make_ca(NOW)
    (tmp_path / "node").mkdir()
    server = credentials(tmp_path, ca, LB)
    client = credentials(tmp_path / "node", new, NODE)
    with pytest.raises(ssl.SSLError):
        shake(client.client_context(), server.server_context(), LB.name)
    for directory in (tmp_path, tmp_path / "node"):
        (directory / "ca.crt").write_bytes(ca.certificate + new.certificate)
    assert shake(client.client_context(), server.server_context(), LB.name) == ("TLSv1.3", NODE, LB)


def test_what_expires_soon_is_said_once_a_day(ca: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as lines:
        own = credentials(tmp_path, ca, LB, issue(ca, LB, NOW, days=29))
        own.pem()
        assert [line["log_level"] for line in lines] == ["warning"]
        monkeypatch.setattr("gale.tls.REMIND_S", 0.0)
        own.pem()
        assert len(lines) == 2
        write(tmp_path, "own", issue(ca, LB, NOW, days=31))
        own.pem()
    assert [line["event"] for line in lines[2:]] == ["certificate renewed"]


def test_nothing_outlives_its_authority(ca: Pair) -> None:
    authority = x509.load_pem_x509_certificate(ca.certificate)
    long = x509.load_pem_x509_certificate(issue(ca, LB, NOW, days=10_000).certificate)
    assert long.not_valid_after_utc == authority.not_valid_after_utc


def test_an_authority_issues_with_its_own_key_only(ca: Pair) -> None:
    with pytest.raises(ValueError, match="not the key of its certificate"):
        issue(Pair(ca.certificate, make_ca(NOW).key), LB, NOW)


def test_keys_are_their_owners_only(ca: Pair, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        certificate, key = write(tmp_path, "ca", ca)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [certificate.name, key.name]
