"""Which of the kernel's capabilities this process has, of those that gale-lb needs.

CAP_BPF and CAP_PERFMON to load programs that look at packets, CAP_NET_ADMIN to put them on interfaces, to read routes'
changes and to set how neighbours are asked for, CAP_NET_RAW to send farewells (farewell.py).
"""

from pathlib import Path

from gale.errors import HostError

NEEDED = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_PERFMON": 38, "CAP_BPF": 39}
"""Names and bits, linux/capability.h."""


def require_rights(status: Path = Path("/proc/self/status")) -> None:
    """Raises HostError that names what is missing."""
    (effective,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    missing = [name for name, bit in NEEDED.items() if not int(effective, 16) >> bit & 1]
    if missing:
        raise HostError(
            f"gale-lb loads programs into the kernel and needs root, or {', '.join(NEEDED)}: {', '.join(missing)}"
            " is missing; run it with sudo, or by its unit: systemctl start gale-lb"
        )
