"""Makes the kernel ask for neighbours five times a second instead of once.

While a link is cut the kernel loses its neighbours behind it. When it is whole again, nothing is sent before the next
question: so the rest of a second, as the kernel comes, is lost for load balancers that want to agree. The setting is an
interface's (retrans_time), of both IP versions, and is put back.

What it was is not written down. If it is found as it is made here, a gale-lb was killed before; then what new
interfaces get is put back.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gale.errors import HostError

RETRANS_MS = 200
"""A whole number of ticks, whatever the kernel's tick is: as it is written it is read again."""

_DEFAULT = "default"  # what new interfaces get; network namespaces but the first do not show it
_USUAL_MS = 1_000
_ROOT = Path("/proc/sys/net")
_VERSIONS = ("ipv4", "ipv6")


@contextmanager
def quick_neighbours(interface: str) -> Iterator[None]:
    """Meanwhile. Raises HostError if it cannot be set."""
    with ExitStack() as stack:
        for version in _present(interface):
            before = _before(version, interface)
            _write(version, interface, RETRANS_MS)
            stack.callback(_write, version, interface, before)
        yield


def put_back(interface: str) -> None:
    """What a gale-lb that was killed has left. Nothing to put back is no error."""
    for version in _present(interface):
        if _read(version, interface) == RETRANS_MS:
            _write(version, interface, _usual(version))


def _present(interface: str) -> list[str]:
    """IPv6 may be switched off."""
    return [version for version in _VERSIONS if _setting(version, interface).exists()]


def _before(version: str, interface: str) -> int:
    value = _read(version, interface)
    return _usual(version) if value == RETRANS_MS else value


def _usual(version: str) -> int:
    return _read(version, _DEFAULT) if _setting(version, _DEFAULT).exists() else _USUAL_MS


def _setting(version: str, interface: str) -> Path:
    return _ROOT / version / "neigh" / interface / "retrans_time_ms"


def _read(version: str, interface: str) -> int:
    return int(_setting(version, interface).read_text())


def _write(version: str, interface: str, value: int) -> None:
    """Nothing is left to be set on an interface that is gone."""
    path = _setting(version, interface)
    if not path.exists():
        return
    try:
        path.write_text(str(value))
    except OSError as error:
        raise HostError(f"{path} cannot be set to {value}: {error.strerror}: run as root") from error
