"""Trouble on the wires of a lab, made at its switch: ports that carry nothing, and frames lost on the way.

A port of a bridge that is disabled forwards no frame in either direction while the link stays up, as behind a switch
that is broken: no program is told. Loss is a rule per way, from one address to another, in the switch's packet filter;
100 per cent of it is a cut in one direction.
"""

import subprocess
import time
from collections.abc import Mapping
from functools import partial
from itertools import product

from pyroute2.iproute.linux import IPRoute

from gale.errors import LabError
from gale.lab import netns
from gale.lab.processes import entering
from gale.lab.topology import Instance, Topology

DISABLED, FORWARDING = 0, 3
TIMEOUT_S = 10
UP_WITHIN_S = 5.0
POLL_S = 0.01
TABLE = "gale_lab"


def set_port(topology: Topology, instance: Instance, interface: str, *, carries: bool) -> None:
    """`interface`: a name of one of its interfaces."""
    if instance.address(interface) is None:
        raise LabError(f"{instance.name} has no {interface} interface")
    port, state = f"{instance.name}-{interface[:3]}", FORWARDING if carries else DISABLED
    netns.inside(topology.switch_namespace, partial(_wait_up, port))
    _run(entering(topology.switch_namespace, ["bridge", "link", "set", "dev", port, "state", str(state)]))


def set_losses(topology: Topology, losses: Mapping[tuple[str, str], int]) -> None:
    """Let the switch lose so many per cent from one instance to another, and nothing else."""
    rules = ruleset({(topology.instance(a), topology.instance(b)): percent for (a, b), percent in losses.items()})
    _run(entering(topology.switch_namespace, ["nft", "-f", "-"]), rules)


def ruleset(losses: Mapping[tuple[Instance, Instance], int]) -> str:
    """What nft is told: the whole table anew, so that what was lost before is not lost any more."""
    rules = [
        f"add rule bridge {TABLE} way ip saddr {one.address()} ip daddr {other.address()}"
        f" numgen random mod 100 <= {percent - 1} drop"
        for (source, target), percent in losses.items()
        for one, other in product(source.links, target.links)
        if one.segment is other.segment and percent
    ]
    table = [
        f"add table bridge {TABLE}",
        f"delete table bridge {TABLE}",
        f"add table bridge {TABLE}",
        f"add chain bridge {TABLE} way {{ type filter hook forward priority 0; }}",
    ]
    return "\n".join([*table, *rules, ""])


def _wait_up(port: str) -> None:
    """A bridge decides itself about a port that is new, once its link is up, and refuses orders until then."""
    deadline = time.monotonic() + UP_WITHIN_S
    with IPRoute() as route:
        index = route.link_lookup(ifname=port)[0]
        while route.link("get", index=index)[0].get("operstate") != "UP":
            if time.monotonic() > deadline:
                raise LabError(f"{port} does not come up")
            time.sleep(POLL_S)


def _run(command: list[str], said: str = "") -> None:
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
