"""SIGHUP: a configuration is read again, and taken if a running program can take all that is new in it.

Whatever comes of it is one line of the log and of the service's status: what has changed, which keys only a restart
changes, or what is wrong with the file. Certificates need none of this: they are looked at by themselves (gale/tls.py).
"""

from collections.abc import Callable

import structlog

from gale.config.reloading import Config, Reload
from gale.errors import ConfigError
from gale.supervisor import Supervisor

log = structlog.get_logger()


def reread(
    now: Config, read: Callable[[], Config], weigh: Callable[[Config, Config], Reload[Config]], supervisor: Supervisor
) -> Config:
    """The configuration to go on with: `now` itself, if there is nothing to take."""
    supervisor.reloading()
    try:
        outcome = weigh(now, read())
    except ConfigError as error:
        log.error("configuration not reloaded, the old one stays in use", reason=str(error))
        supervisor.reloaded(f"configuration not reloaded: {error}")
        return now
    if outcome.fixed:
        keys = ", ".join(outcome.fixed)
        log.error("configuration not reloaded, nothing of it is in use: only a restart changes these", keys=keys)
        supervisor.reloaded(f"configuration not reloaded: only a restart changes {keys}")
    elif outcome.changed:
        log.info("configuration reloaded", changed="; ".join(outcome.changed))
        supervisor.reloaded("configuration reloaded")
    else:
        log.info("configuration reloaded: it says nothing new")
        supervisor.reloaded("configuration reloaded: it says nothing new")
    return outcome.config if outcome.changed else now
