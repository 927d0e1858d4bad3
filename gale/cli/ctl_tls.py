"""gale-ctl and certificates: making them, and looking at them."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gale.cli.failing import debug_option, one_line_errors
from gale.cli.showing import Answer, tells
from gale.errors import ConfigError, HostError
from gale.pki import CA_DAYS, DAYS, Pair, issue, make_ca, write
from gale.tls import Identity, Role, identity, pair

DIRECTORY = Path("/etc/gale/tls")


@click.group()
def tls() -> None:
    """Make the certificates that [tls] asks for."""


directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DIRECTORY,
    show_default=True,
    help="Where ca.crt and ca.key are.",
)


@tls.command("init")
@directory_option
@debug_option
@one_line_errors("gale-ctl")
def init(directory: Path, debug: bool) -> None:
    """Make an authority: ca.crt for everybody, and ca.key, which whoever has it can be anybody with."""
    for name in ("ca.crt", "ca.key"):
        if (directory / name).exists():
            raise HostError(f"{directory / name}: is there already: another authority needs another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        certificate, key = write(directory, "ca", make_ca(datetime.now(UTC)))
    except OSError as error:
        raise HostError(f"{directory}: cannot be written: {error.strerror}") from error
    click.echo(f"{certificate}: give it to every load balancer, node and operator; valid for {CA_DAYS} days")
    click.echo(f"{key}: keep it to yourself, best on no load balancer")


@tls.command("issue")
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.argument("name")
@click.option("--hostname", multiple=True, help="Of a load balancer: a name by which nodes and operators call it.")
@click.option("--days", type=click.IntRange(1, CA_DAYS), default=DAYS, show_default=True, help="How long it is valid.")
@click.option(
    "--renew-within",
    metavar="DAYS",
    type=click.IntRange(0),
    help="Keep what is there and fit, unless it ends within so many days.",
)
@directory_option
@debug_option
@one_line_errors("gale-ctl")
def issue_(
    role: str,
    name: str,
    hostname: tuple[str, ...],
    days: int,
    renew_within: int | None,
    directory: Path,
    debug: bool,
) -> None:
    """Make NAME.crt and NAME.key; again for the same NAME: new ones in their place.

    NAME of a load balancer (lb) is its private IPv4 address, of a node its node.name, of an operator or a reader any.
    """
    try:
        who = Identity(Role(role), name)
    except ValueError as error:
        raise ConfigError(f"NAME {error}") from error
    if hostname and who.role is not Role.LOAD_BALANCER:
        raise ConfigError(f"--hostname {hostname[0]}: is for load balancers, nobody calls a {role}")
    if name == "ca":
        raise ConfigError("NAME ca: its files would replace the authority's: take another")
    existing = directory / f"{name}.crt"
    if existing.exists() and (holder := _show(existing)[0]) != who:
        raise HostError(f"{existing}: is for {holder}: move it away, or take another name")
    now = datetime.now(UTC)
    end = None if renew_within is None else _fit_until(directory, name, hostname)
    if end and end - now > timedelta(days=renew_within or 0):
        click.echo(f"{existing}: {who}, valid until {end:%Y-%m-%d}: kept")
        return
    try:
        ca = Pair((directory / "ca.crt").read_bytes(), (directory / "ca.key").read_bytes())
        certificate, key = write(directory, name, issue(ca, who, now, days, hostname))
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}; gale-ctl tls init makes an authority") from error
    except (TypeError, ValueError) as error:
        raise HostError(f"{directory}: cannot issue: {error}") from error
    click.echo(f"{certificate}: {who}, valid until {_show(certificate)[1]:%Y-%m-%d}")
    click.echo(f"{key}: for nobody else")


@tls.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@tells
def show(file: Path) -> Answer:
    """Whom a certificate names, and until when. Ends with code 1 when that is over."""
    who, until = _show(file)
    plain = {
        "role": who.role.value if who else "authority",
        "name": who.name if who else None,
        "valid_until": until.isoformat(timespec="seconds"),
    }
    told = f"{who or 'an authority'}, valid until {until:%Y-%m-%d %H:%M} UTC"
    return Answer(plain, lambda: [told], bad=until < datetime.now(UTC))


def _fit_until(directory: Path, name: str, hostnames: Collection[str]) -> datetime | None:
    """The end of a certificate that a new one would not differ from; None when it would, or this one is of no use."""
    try:
        _, certificate = pair(directory / "ca.crt", directory / f"{name}.crt", directory / f"{name}.key")
    except HostError:
        return None
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    same = set(names.get_values_for_type(x509.DNSName)) - {"localhost"} == set(hostnames) - {"localhost"}
    return certificate.not_valid_after_utc if same else None


def _show(file: Path) -> tuple[Identity | None, datetime]:
    """None for the holder of an authority's certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise HostError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise HostError(f"{file}: not a certificate in PEM form") from error
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return None, certificate.not_valid_after_utc
        return identity(certificate.public_bytes(Encoding.DER)), certificate.not_valid_after_utc
    except (ValueError, x509.ExtensionNotFound) as error:
        raise HostError(f"{file}: {error}") from error
