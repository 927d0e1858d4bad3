"""SIGHUP: what a running program takes from a configuration that was read again, and what it names instead."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gale.config import LbConfig, NodeConfig, load_lb, load_node
from gale.config.reloading import reload_lb, reload_node
from gale.core.probes import TcpProbe
from gale.errors import ConfigError
from gale.reload import reread
from gale.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
LB, NODE = load_lb(ROOT / "cmd/lb.toml"), load_node(ROOT / "cmd/node.toml")


def with_timeout(config: LbConfig, ms: int) -> LbConfig:
    return replace(config, shared=replace(config.shared, health=replace(config.shared.health, checks_timeout_ms=ms)))


def test_the_health_policy_is_taken() -> None:
    new = replace(with_timeout(LB, 2_000), enforces=True)
    outcome = reload_lb(LB, new)
    assert (outcome.config, outcome.fixed) == (new, ())
    assert outcome.changed == (
        "node_health.checks_timeout: 5000ms -> 2000ms",
        "load_balancer_quorum.enforce_single_configuration: false -> true",
    )


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"flows": 1 << 19}, "forwarding.flows"),
        ({"quorum": LB.quorum[:1]}, "load_balancer_quorum.addresses"),
        ({"public_interface": "eth7"}, "public_interface.net_interface_public"),
        ({"shared": replace(LB.shared, services=())}, "service.default.port"),
    ],
)
def test_of_what_needs_a_restart_nothing_is_taken_not_even_the_rest(change: dict[str, object], key: str) -> None:
    outcome = reload_lb(LB, replace(with_timeout(LB, 2_000), **{"shared": LB.shared, **change}))  # type: ignore[arg-type]
    assert (outcome.config, outcome.changed) == (LB, ())
    assert key in outcome.fixed
    both = reload_lb(LB, with_timeout(replace(LB, flows=1 << 19), 2_000))
    assert (both.config, both.changed, both.fixed) == (LB, (), ("forwarding.flows",))


def test_every_key_of_the_files_is_either_taken_or_named() -> None:
    """A field that is added to a configuration and forgotten here would be lost without a word."""
    both: tuple[tuple[Any, Any], ...] = ((LB, reload_lb), (NODE, reload_node))
    for config, weigh in both:
        for field in set(type(config).__dataclass_fields__) - {"warnings", "shared", "own"}:  # which follow from others
            value = object() if not isinstance(getattr(config, field), bool) else not getattr(config, field)
            outcome = weigh(config, replace(config, **{field: value}))
            assert outcome.changed or outcome.fixed, field
    assert reload_lb(LB, replace(LB, shared=replace(LB.shared, services=()))).fixed


def test_a_node_takes_weight_services_and_probe_and_no_other_name() -> None:
    new = replace(NODE, weight=7, services=("web",), probe=TcpProbe(80))
    assert reload_node(NODE, new).config == new
    assert reload_node(NODE, new).changed == ("node.weight", "node.services", "[health]")
    assert reload_node(NODE, replace(new, name="other")).fixed == ("node.name",)


def test_whatever_comes_of_it_is_one_line() -> None:
    def unreadable() -> NodeConfig:
        raise ConfigError("node.toml: not TOML")

    with capture_logs() as lines:
        assert reread(NODE, unreadable, reload_node, Supervisor()) is NODE
        assert reread(NODE, lambda: replace(NODE, name="other"), reload_node, Supervisor()) is NODE
        assert reread(NODE, lambda: replace(NODE), reload_node, Supervisor()) is NODE
        assert reread(NODE, lambda: replace(NODE, weight=9), reload_node, Supervisor()).weight == 9
    said = [(line["log_level"], line.get("reason") or line.get("keys") or line.get("changed")) for line in lines]
    assert said == [("error", "node.toml: not TOML"), ("error", "node.name"), ("info", None), ("info", "node.weight")]
