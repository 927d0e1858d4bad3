"""What a lab can be asked for, and the configuration files that follow from it: pure values and texts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gale.errors import ConfigError
from gale.lab.topology import CLIENTS_PORT, NODE_HTTP_PORT, Instance, Topology


@dataclass(frozen=True, slots=True)
class LabOptions:
    """Durations are written as in gale's configuration: "500ms", "5s", "5m".

    members: so many load balancers, the first ones, are in the configured list and run; the machines of the others are
    there and wait to become members. None: all.
    """

    load_balancers: int = 3
    nodes: int = 3
    mode: str = "l4"
    checks_before_routing: int = 3
    checks_timeout: str = "1s"
    black_list_after_fails: int = -1
    black_list_expiry: str = "60s"
    enforce_single_configuration: bool = False
    tls: bool = False
    members: int | None = None

    def __post_init__(self) -> None:
        if self.members is not None and not 1 <= self.members <= self.load_balancers:
            raise ConfigError(
                f"{self.members} members: a lab of {self.load_balancers} load balancers has 1 to all of them"
            )
        if self.mode != "l4":
            raise ConfigError(f'mode {self.mode!r}: this version forwards in "l4" only')

    def topology(self, prefix: str) -> Topology:
        return Topology(prefix, self.load_balancers, self.nodes)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def lb_toml(topology: Topology, options: LabOptions, state_directory: Path, members: Sequence[Instance] = ()) -> str:
    """The configuration of a load balancer; they differ in their state directories alone.

    `members`: the configured list; none: the first ones, as the options have it.
    """
    quorum = _addresses(members or topology.lbs[: options.members])
    return f"""\
[private_interface]
net_interface_private = "private"

[public_interface]
clients_port = {CLIENTS_PORT}
net_interface_public = "public"

[node_health]
checks_before_routing = {options.checks_before_routing}
checks_timeout = "{options.checks_timeout}"
black_list_after_fails = {options.black_list_after_fails}
black_list_expiry = "{options.black_list_expiry}"

[load_balancer_quorum]
enforce_single_configuration = {str(options.enforce_single_configuration).lower()}
addresses = [
{quorum}
]

[forwarding]
mode = "{options.mode}"
target_port = {NODE_HTTP_PORT}

[state]
directory = "{state_directory}"
"""


def node_toml(topology: Topology, options: LabOptions, name: str, members: Sequence[Instance] = ()) -> str:
    addresses = _addresses(members or topology.lbs[: options.members])
    return f"""\
[load_balancer]
addresses = [
{addresses}
]

[node]
name = "{name}"
"""


def _addresses(lbs: Sequence[Instance]) -> str:
    return "\n".join(f'    {{ ip = "{lb.private}" }},' for lb in lbs)
