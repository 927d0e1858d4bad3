"""Making gale's certificates: an authority of its own, and what it issues. Keys are EC P-256.

Only load balancers' certificates are fit for a server, so a node that is taken over cannot pose as one: its
certificate says it is a client's. A load balancer's names the addresses at which it is called, which callers compare.
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gale.tls import Identity, Role

CA_DAYS = 3650
DAYS = 365
CLOCKS_DIFFER = timedelta(minutes=10)
"""A new certificate is valid since a little earlier, for machines whose clocks are behind."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes


def make_ca(now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name("gale ca")
    builder = _builder(name, name, key, now, now + timedelta(days=CA_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(ca=True), critical=True)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(ca: Pair, who: Identity, now: datetime, days: int = DAYS, hostnames: Sequence[str] = ()) -> Pair:
    """A certificate for `who`, valid no longer than the authority. Raises ValueError when `ca` is no authority's pair,
    or a host name is none."""
    authority = x509.load_pem_x509_certificate(ca.certificate)
    ca_key = load_pem_private_key(ca.key, None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != authority.public_key():
        raise ValueError("the authority's key is not the key of its certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + timedelta(days=days), authority.not_valid_after_utc)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(who.uri)]
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if who.role is Role.LOAD_BALANCER:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names += [x509.IPAddress(ipaddress.IPv4Address(address)) for address in (who.name, "127.0.0.1")]
        names += [x509.DNSName(hostname) for hostname in ("localhost", *hostnames)]
    builder = _builder(_common_name(who.name), authority.subject, key, now, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    return _pair(builder.sign(ca_key, hashes.SHA256()), key)


def write(directory: Path, stem: str, pair: Pair) -> tuple[Path, Path]:
    """STEM.crt and STEM.key (readable by its owner only), each replaced in one step. Raises OSError."""
    written = []
    for suffix, content, mode in ((".key", pair.key, 0o600), (".crt", pair.certificate, 0o644)):
        path = directory / f"{stem}{suffix}"
        new = directory / f".{stem}{suffix}.new"
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
        written.append(path)
    return written[1], written[0]


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(certificate.public_bytes(Encoding.PEM), secret)
