"""Compiles bpf/gale.c for the settings of this load balancer and loads its two programs.

BCC asks for a kernel source tree; bpf/include/ stands in for one (bpf/README.md), so that no headers of the running
kernel are needed. What BCC and clang have to say goes to file descriptor 2 from C; it is caught there, and its first
complaint becomes the text of the error.
"""

import os
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.links import interface_index
from gale.dataplane.settings import DataplaneSettings
from gale.dataplane.syscall import require_bpf
from gale.errors import DataplaneError, HostError

if TYPE_CHECKING:
    import bcc

PUBLIC_PROGRAM = "gale_public"
PRIVATE_PROGRAM = "gale_private"
"""Names of the programs in bpf/gale.c and in the kernel, by which gale knows its own."""

_CLOCK_MONOTONIC_COARSE = 6
"""linux/time.h; the time module has no name for it."""


@dataclass(frozen=True, slots=True)
class Program:
    """The loaded programs as file descriptors, and the module that holds the maps. They live as long as the module."""

    module: "bcc.BPF"
    public_fd: int
    private_fd: int


def load(settings: DataplaneSettings, source: bytes | None = None) -> Program:
    """Raises HostError for a machine that cannot, and DataplaneError for a source that the kernel refuses.

    `source` stands in for the text of bpf/gale.c: a benchmark adds programs of its own to it.
    """
    require_bpf()
    bcc = _import_bcc()
    text = source or (BPF_DIRECTORY / "gale.c").read_bytes()
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF_DIRECTORY)
    cflags = _cflags(settings)
    with _explained():
        module = bcc.BPF(text=text, cflags=cflags)
        public = module.load_func(PUBLIC_PROGRAM.encode(), bcc.BPF.XDP)
        private = module.load_func(PRIVATE_PROGRAM.encode(), bcc.BPF.SCHED_CLS)
    return Program(module, public.fd, private.fd)


def _import_bcc() -> ModuleType:
    try:
        import bcc
    except ImportError as error:
        raise HostError(
            "bcc is missing: apt-get install python3-bpfcc, and make the virtual environment from the "
            "distribution's Python with --system-site-packages"
        ) from error
    return bcc


def _cflags(settings: DataplaneSettings) -> list[str]:
    listeners = len(settings.listeners) + 1
    source_address = int.from_bytes(socket.inet_aton(settings.source_address), sys.byteorder)
    constants = {
        "SERVICES": len(settings.services),
        "LISTENERS": 1 << (listeners - 1).bit_length(),
        "SLOTS": settings.slots,
        "FLOWS": settings.flows,
        "CPUS": _cpus(),
        "SOURCE_ADDRESS": f"{source_address}U",
        "PUBLIC_IFINDEX": interface_index(settings.public_interface),
        "JIFFIES_PER_S": jiffies_per_second(),
    }
    user_api = ["/usr/include", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
    return [
        *(f"-I{directory}" for directory in (BPF_DIRECTORY, *user_api)),
        *(f"-D{name}={value}" for name, value in constants.items()),
    ]


def jiffies_per_second() -> int:
    """The kernel's tick, which is the resolution of its coarse clock."""
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))


def _cpus() -> int:
    """The processors of this machine have numbers from 0 to less than this. The file says "0-3"."""
    return int(Path("/sys/devices/system/cpu/present").read_text().replace(",", "-").split("-")[-1]) + 1


@contextmanager
def _explained() -> Iterator[None]:
    """What is written to file descriptor 2 meanwhile is kept back, and explains the exception, if there is one."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        except Exception as error:  # BCC raises nothing more specific
            caught.seek(0)
            raise DataplaneError(f"bpf/gale.c: {_complaint(caught.read().decode(errors='replace'), error)}") from error
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _complaint(output: str, error: Exception) -> str:
    """The compiler's first error; else the verifier's last word, which stands before its statistics."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("processed ")]
    return next((line for line in lines if "error:" in line), lines[-1] if lines else str(error))
