"""Who is who between gale's programs: certificates, and the contexts of mutual TLS 1.3 that are made of them.

A certificate of gale names its holder in one URI among its subject alternative names: gale:lb:192.168.1.2,
gale:node:web-1, gale:operator:NAME or gale:reader:NAME. The issuer vouches for it, and the issuer is always the `ca`
that this program was given: no other authority of the machine counts.

Certificates are renewed without a restart. At most once a second the files are looked at, and when one was replaced
all three are read again; what is unfit is said once, and the last good ones stay in use until a file changes again.
Connections that are open keep the certificate with which they were made.
"""

import ipaddress
import ssl
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gale.config.reading import TlsFiles, is_name
from gale.errors import HostError

log = structlog.get_logger()

SCHEME = "gale"
LOOK_AGAIN_S = 1.0
EXPIRES_SOON = timedelta(days=30)
REMIND_S = 86_400.0
# What cryptography raises for a certificate that is out of form.
UNFIT = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Role(StrEnum):
    LOAD_BALANCER = "lb"
    NODE = "node"
    OPERATOR = "operator"
    READER = "reader"


@dataclass(frozen=True, slots=True)
class Identity:
    """`name`: of a load balancer its IP address as in the quorum, of a node its name. ValueError: it is out of form."""

    role: Role
    name: str

    def __post_init__(self) -> None:
        if self.role is Role.LOAD_BALANCER:
            if not _is_ipv4(self.name):
                raise ValueError(f"{self.name[:64]!r}: a load balancer is named by its private IPv4 address")
        elif not is_name(self.name):
            raise ValueError(f"{self.name[:64]!r}: 1 to 64 letters, digits, dots, dashes and underscores are a name")

    @property
    def uri(self) -> str:
        return f"{SCHEME}:{self.role}:{self.name}"

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


def identity(der: bytes) -> Identity:
    """Whom a certificate names. Raises ValueError when it is not one of gale's."""
    try:
        return _identity(x509.load_der_x509_certificate(der))
    except UNFIT as error:
        raise ValueError(f"not a certificate of gale: {error}") from error


def _identity(certificate: x509.Certificate) -> Identity:
    """Raises UNFIT."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    own = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(f"{SCHEME}:")]
    if len(own) != 1:
        raise ValueError(f"it has {len(own)} names that begin with {SCHEME}:, and one is right")
    _, role, name = own[0].split(":", 2) if own[0].count(":") >= 2 else ("", "", "")
    if role not in tuple(Role):
        raise ValueError(f"{own[0][:80]!r} names no role: {', '.join(Role)} are there")
    return Identity(Role(role), name)


def _is_ipv4(text: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(text)) == text
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One good reading of the three files."""

    pem: tuple[bytes, bytes, bytes]
    who: Identity
    valid_until: datetime
    server: ssl.SSLContext
    visitors: ssl.SSLContext
    client: ssl.SSLContext


class Credentials:
    """What this program proves itself with, and whom it trusts. Raises HostError when the files are unfit.

    May be used by several threads: gRPC asks from its own.
    """

    def __init__(self, ca: Path, cert: Path, key: Path, look_again_s: float = LOOK_AGAIN_S) -> None:
        self._paths = (ca, cert, key)
        self._look_again_s = look_again_s
        self._lock = threading.Lock()
        self._seen = _marks(self._paths)
        self._loaded = _load(self._paths)
        self._looked_s = time.monotonic()
        self._reminded_s = float("-inf")
        self._remind()

    @property
    def who(self) -> Identity:
        return self._loaded.who

    @property
    def valid_until(self) -> datetime:
        return self._current().valid_until

    def server_context(self) -> ssl.SSLContext:
        """For listening: a client without a certificate of our authority is refused in the handshake."""
        return self._current().server

    def visitors_context(self) -> ssl.SSLContext:
        """For listening to whoever comes: a certificate is taken, of our authority only, and none is needed."""
        return self._current().visitors

    def client_context(self) -> ssl.SSLContext:
        """For calling: the server must have a certificate of our authority for the address that is called."""
        return self._current().client

    def pem(self) -> tuple[bytes, bytes, bytes]:
        """Authority, certificate and key, each as PEM."""
        return self._current().pem

    def _current(self) -> _Loaded:
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._looked_s >= self._look_again_s:
                self._looked_s = now_s
                marks = _marks(self._paths)
                if marks != self._seen:
                    self._seen = marks
                    self._renew()
                self._remind()
            return self._loaded

    def _renew(self) -> None:
        try:
            new = _load(self._paths)
            if new.who != self.who:
                raise HostError(
                    f"{self._paths[1]}: names {new.who}, and this is {self.who}: a restart would change that"
                )
        except HostError as error:
            log.error("the new certificate is not used, the last good one is", reason=str(error))
            return
        self._loaded = new
        log.info("certificate renewed", certificate=str(new.who), valid_until=f"{new.valid_until:%Y-%m-%d}")

    def _remind(self) -> None:
        """Say once a day that the end is near, or was."""
        end, now_s = self._loaded.valid_until, time.monotonic()
        if end - datetime.now(UTC) < EXPIRES_SOON and now_s - self._reminded_s >= REMIND_S:
            self._reminded_s = now_s
            log.warning("certificate expires: renew it", file=str(self._paths[1]), valid_until=f"{end:%Y-%m-%d}")


def credentials(files: TlsFiles | None, role: Role, names: Collection[str]) -> Credentials | None:
    """Of a configuration's [tls], if it has one. HostError: they are unfit, or of another role or name than these."""
    if files is None:
        return None
    own = Credentials(files.ca, files.cert, files.key)
    if own.who.role is not role or own.who.name not in names:
        right = " or ".join(f"{role} {name}" for name in names)
        raise HostError(f"{files.cert}: is for {own.who}, and this is {right}: gale-ctl tls issue makes one")
    return own


def pair(ca: Path, cert: Path, key: Path) -> tuple[Identity, x509.Certificate]:
    """Whom a certificate that may be used with its key names. Raises HostError when it may not."""
    loaded = _load((ca, cert, key))
    return loaded.who, x509.load_pem_x509_certificate(loaded.pem[1])


def _marks(paths: Sequence[Path]) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file is replaced or written; None for one that cannot be looked at."""
    marks: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
            marks.append((status.st_mtime_ns, status.st_ino, status.st_size))
        except OSError:
            marks.append(None)
    return tuple(marks)


def _load(paths: tuple[Path, Path, Path]) -> _Loaded:
    ca, cert, key = paths
    pem = (_read(ca), _read(cert), _read(key))
    authorities, chain = _certificates(ca, pem[0]), _certificates(cert, pem[1])
    own = chain[0]
    try:
        who = _identity(own)
    except UNFIT as error:
        raise HostError(f"{cert}: not a certificate of gale: {error}: gale-ctl tls issue makes one") from error
    _require_valid_now(cert, own)
    if not any(_issued(own, issuer) for issuer in (*authorities, *chain[1:])):
        raise HostError(f"{cert}: was not issued by {ca}: take the pair that was made together")
    _require_key_fits(cert, own, key, pem[2])
    try:
        server, visitors = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.verify_mode, visitors.verify_mode = ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL
        server.num_tickets = visitors.num_tickets = 0  # every connection shows its certificate anew
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (server, visitors, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_verify_locations(cadata=pem[0].decode("ascii", "replace"))
            context.load_cert_chain(cert, key)
    except (OSError, ValueError) as error:  # the files were replaced since they were read, or OpenSSL is stricter
        raise HostError(f"{cert}: cannot be used: {error}") from error
    return _Loaded(pem, who, own.not_valid_after_utc, server, visitors, client)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from error


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise HostError(f"{path}: not a certificate in PEM form") from error


def _require_valid_now(path: Path, certificate: x509.Certificate) -> None:
    now, begin, end = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        raise HostError(f"{path}: valid from {begin:%Y-%m-%d %H:%M} UTC only: is this machine's clock right?")
    if now > end:
        raise HostError(f"{path}: expired on {end:%Y-%m-%d %H:%M} UTC: gale-ctl tls issue makes a new one")


def _require_key_fits(cert: Path, certificate: x509.Certificate, key: Path, pem: bytes) -> None:
    try:
        private = load_pem_private_key(pem, None)
    except TypeError as error:
        raise HostError(f"{key}: has a passphrase: nobody could type it, take one without") from error
    except ValueError as error:
        raise HostError(f"{key}: not a private key in PEM form") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise HostError(f"{key}: is not the key of {cert}: take the pair that was made together")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
