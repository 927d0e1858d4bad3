"""The cluster's status as tables for people. Takes the JSON form, so that what is shown is what scripts can read."""

from typing import Any

from rich.table import Column, Table

ROLE_STYLES = {
    "leader": "bold green",
    "follower": "green",
    "learner": "cyan",
    "unreachable": "red",
    "ignored": "yellow",
}
PHASE_STYLES = {
    "routing": "green",
    "joining": "cyan",
    "draining": "yellow",
    "failed": "red",
    "banned": "bold red",
    "left": "dim",
}


def load_balancer_table(status: dict[str, Any]) -> Table:
    whole = [Column(name, no_wrap=True) for name in ("load balancer", "role", "applied", "generation", "configuration")]
    table = Table(*whole, "version", "reason", box=None)
    for lb in status["load_balancers"]:
        role = lb["role"]
        table.add_row(
            lb["address"],
            f"[{ROLE_STYLES.get(role, '')}]{role}[/]",
            str(lb["applied_index"]),
            str(lb["generation"]),
            lb["config_hash"],
            lb["version"],
            lb["reason"],
        )
    return table


def node_table(status: dict[str, Any]) -> Table:
    table = Table("node", "address", "phase", "weight", "checks", "fails", "banned until", box=None)
    for node in status["nodes"]:
        phase = node["phase"]
        checks = " ".join(f"{lb}={count}" for lb, count in sorted(node["checks"].items()))
        table.add_row(
            node["id"],
            node["address"],
            f"[{PHASE_STYLES.get(phase, '')}]{phase}{_remark(node, status)}[/]",
            str(node["weight"]),
            checks,
            str(node["fails"]),
            node["banned_until"] or "",
        )
    return table


def verdict_table(verdicts: dict[str, int]) -> Table:
    table = Table("verdict", "packets", box=None)
    for name, packets in verdicts.items():
        table.add_row(name, str(packets))
    return table


def summary(status: dict[str, Any]) -> str:
    routing = sum(node["phase"] == "routing" for node in status["nodes"])
    agreed = f"leader {status['leader']}" if status["leader"] else "no leader"
    quorum = "quorum" if status["quorum"] else "NO QUORUM: nothing can be decided, forwarding goes on without what dies"
    told = (
        f"{agreed}, term {status['term']}, {quorum}; generation {status['generation']},"
        f" {routing} of {len(status['nodes'])} nodes route"
    )
    return told if status["quorum"] else f"{told}; nodes taken away here: {', '.join(status['degraded']) or 'none'}"


def _remark(node: dict[str, Any], status: dict[str, Any]) -> str:
    if node["id"] in status["degraded"]:
        return ", taken away here"
    return ", to be drained" if node["drained"] and node["phase"] != "draining" else ""
