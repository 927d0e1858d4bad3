"""Whether a load balancer's file is right, as far as this machine can tell."""

from pathlib import Path

from gale.config import LbConfig, load_lb
from gale.tls import Role, credentials


def checked(file: Path) -> LbConfig:
    """Raises ConfigError or HostError: its certificates count, too."""
    settings = load_lb(file)
    credentials(settings.tls, Role.LOAD_BALANCER, settings.load_balancers)
    return settings
