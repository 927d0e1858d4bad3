"""What runs on each machine of a lab: command lines, in the order in which they start."""

import shutil

from gale.errors import LabError
from gale.lab.feed import python
from gale.lab.options import IPERF_NODE, LabOptions, iperf_ports, server_arguments
from gale.lab.store import Store
from gale.lab.topology import Instance, Role

PROGRAMMED = (Role.LOAD_BALANCER, Role.NODE)


def programs(store: Store, options: LabOptions, instance: Instance) -> dict[str, list[str]]:
    """By what they are: "lb" of a load balancer; "server", what iperf3 there is, and "agent" of a node."""
    config = str(store.config(instance.name))
    match instance.role:
        case Role.LOAD_BALANCER:
            return {"lb": python("gale.cli.lb", "--config", config)}
        case Role.NODE:
            servers = {"server": python("gale.lab.server", "--name", instance.name, *server_arguments(options))}
            if options.iperf and instance.name == IPERF_NODE:
                if shutil.which("iperf3") is None:
                    raise LabError("iperf3 is missing: apt-get install iperf3")
                servers |= {name: ["iperf3", "-s", "-p", str(port)] for name, port in iperf_ports(options).items()}
            return {**servers, "agent": python("gale.cli.node", "--config", config)}
        case _:
            return {}
