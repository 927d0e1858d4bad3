"""Certificates of a lab with [tls]: an authority of its own, one for each instance, and an operator's.

Files are named like instances: lb-0.crt, node-0.crt, …, operator.crt.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from gale.lab.topology import Role as LabRole
from gale.lab.topology import Topology
from gale.pki import issue, make_ca, write
from gale.tls import Credentials, Identity, Role

OPERATOR = "operator"


def issue_all(directory: Path, topology: Topology) -> None:
    now = datetime.now(UTC)
    ca = make_ca(now)
    write(directory, "ca", ca)
    write(directory, OPERATOR, issue(ca, Identity(Role.OPERATOR, OPERATOR), now))
    for instance in topology.instances:
        if instance.role is LabRole.LOAD_BALANCER and instance.private:
            write(directory, instance.name, issue(ca, Identity(Role.LOAD_BALANCER, instance.private), now))
        elif instance.role is LabRole.NODE:
            write(directory, instance.name, issue(ca, Identity(Role.NODE, instance.name), now))


def files(directory: Path, stem: str) -> dict[str, str]:
    """The keys of [tls], and the options of who asks."""
    return {"ca": f"{directory}/ca.crt", "cert": f"{directory}/{stem}.crt", "key": f"{directory}/{stem}.key"}


def toml(directory: Path, stem: str) -> str:
    lines = "".join(f'{key} = "{path}"\n' for key, path in files(directory, stem).items())
    return f"\n[tls]\n{lines}"


def environment(directory: Path) -> dict[str, str]:
    """What makes gale-ctl an operator's."""
    return {f"GALE_{key.upper()}": path for key, path in files(directory, OPERATOR).items()}


def own_credentials() -> Credentials | None:
    """Of a program of the lab that was given such an environment."""
    ca, cert, key = (os.environ.get(name) for name in ("GALE_CA", "GALE_CERT", "GALE_KEY"))
    return Credentials(Path(ca), Path(cert), Path(key)) if ca and cert and key else None
