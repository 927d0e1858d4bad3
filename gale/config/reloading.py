"""What a running program can take from a configuration that was read again, and what needs a restart.

All of it or nothing: a file in which something else has changed as well is not taken half. Keys are named as the file
names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gale.config.lb import LbConfig
from gale.config.node import NodeConfig

_HEALTH = "node_health."
_LB_KEYS = {
    "private_interface": "private_interface.net_interface_private",
    "public_interface": "public_interface.net_interface_public",
    "flows": "forwarding.flows",
    "learning_s": "forwarding.learning_time",
    "node_port": "private_interface.node_port",
    "api_port": "private_interface.api_port",
    "quorum": "load_balancer_quorum.addresses",
    "state_directory": "state.directory",
    "web_address": "web.address",
    "web_port": "web.port",
    "api_socket": "api.socket",
    "tls": "[tls]",
}
"""Fields of LbConfig that need a restart, by the key that an operator knows."""
_ENFORCES = "load_balancer_quorum.enforce_single_configuration"
_NODE_KEYS = {
    "name": "node.name",
    "load_balancers": "load_balancer.addresses",
    "address6": "node.address6",
    "web_address": "web.address",
    "web_port": "web.port",
    "tls": "[tls]",
}
_NODE_LIVE = {
    "weight": "node.weight",
    "services": "node.services",
    "drain_timeout_s": "node.drain_timeout",
    "probe": "[health]",
    "probe_interval_s": "health.interval",
    "probe_timeout_s": "health.timeout",
}

Config = TypeVar("Config", LbConfig, NodeConfig)


@dataclass(frozen=True, slots=True)
class Reload(Generic[Config]):
    """`config`: to go on with, the old one if anything is in the way. `changed`: what is new in it, "key: before ->
    after". `fixed`: keys that only a restart changes, for which nothing was taken."""

    config: Config
    changed: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


def reload_lb(now: LbConfig, new: LbConfig) -> Reload[LbConfig]:
    fixed = [key for field, key in _LB_KEYS.items() if getattr(now, field) != getattr(new, field)]
    before, after = (dict(config.shared.canonical()) for config in (now, new))
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    fixed += [key for key in keys if not key.startswith(_HEALTH)]
    if fixed:
        return Reload(now, fixed=tuple(fixed))
    changed = [f"{key}: {before[key]} -> {after[key]}" for key in keys]
    if now.enforces != new.enforces:
        changed.append(f"{_ENFORCES}: {_word(now.enforces)} -> {_word(new.enforces)}")
    return Reload(new, tuple(changed))


def reload_node(now: NodeConfig, new: NodeConfig) -> Reload[NodeConfig]:
    if fixed := _differing(_NODE_KEYS, now, new):
        return Reload(now, fixed=fixed)
    return Reload(new, _differing(_NODE_LIVE, now, new))


def _differing(keys: Mapping[str, str], now: NodeConfig, new: NodeConfig) -> tuple[str, ...]:
    return tuple(key for field, key in keys.items() if getattr(now, field) != getattr(new, field))


def _word(value: bool) -> str:
    return "true" if value else "false"
