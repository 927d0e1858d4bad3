"""Every mode with both IP versions in a small lab, as far as a slow machine can: what scripts/kernel-e2e runs last.

    python -m e2e.kernel.short

Prints a line for each; the exit code is 1 when one failed.
"""

import platform
import sys
from collections.abc import Callable
from functools import partial

from e2e.plane import clients
from e2e.plane.clients import CELLS, at
from gale.errors import LabError
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions

OPTIONS = LabOptions(
    load_balancers=1, nodes=2, modes=("l4", "l2", "l3"), ipv6=True, udp=True, checks_timeout="10s", virtual=True
)
UP_WITHIN_S = 500.0
REQUESTS = 20
DATAGRAMS = 5
TRANSFER = 100_000


def requests(lab: Lab, where: str) -> None:
    clients.curl(lab, where, REQUESTS)


def datagrams(lab: Lab, where: str) -> None:
    with clients.flows(lab, where, DATAGRAMS, "udp") as kept:
        clients.asked(kept, kept.rounds[-1].ended_s, within_s=30)


def transfers(lab: Lab, where: str) -> None:
    assert clients.download(lab, where, TRANSFER, "client") == TRANSFER
    assert clients.upload(lab, where, TRANSFER, "client") == TRANSFER


def tried(what: str, work: Callable[[], None]) -> bool:
    """Do it, and say how it went."""
    try:
        work()
    except (AssertionError, LabError) as error:
        sys.stdout.write(f"FAILED  {what}: {error}\n")
        return False
    sys.stdout.write(f"passed  {what}\n")
    return True


def main() -> None:
    lab, held = Lab("gale-kernel"), []
    try:
        lab.up(OPTIONS)
        held.append(tried(f"Linux {platform.release()}: every node routes", lambda: lab.wait_routing(UP_WITHIN_S)))
        for mode, version in CELLS if held[0] else ():
            where = at(lab, mode, version)
            for work in (requests, datagrams, transfers):
                held.append(tried(f"{mode} IPv{version}: {work.__name__}", partial(work, lab, where)))
    finally:
        lab.down()
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
