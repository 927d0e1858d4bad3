"""The cluster's status as tables for people. Takes the JSON form, so that what is shown is what scripts can read."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from gale.cli.rates import summed

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
HASH_SHOWN = 8
"""As many digits of a configuration's hash: enough to see that two differ."""


def load_balancer_table(status: dict[str, Any], in_brief: bool = False) -> Table:
    """`in_brief`: one line each, on 80 columns too, without programs and reasons."""
    whole = [Column(name, no_wrap=True) for name in ("load balancer", "role", "applied", "generation", "config")]
    more: list[Column | str] = [] if in_brief else ["programs", Column("reason", overflow="fold")]
    table = Table(*whole, "version", *more, box=None)
    for lb in status["load_balancers"]:
        role = lb["role"]
        table.add_row(
            lb["address"],
            f"[{ROLE_STYLES.get(role, '')}]{role}[/]",
            str(lb["applied_index"]),
            str(lb["generation"]),
            lb["config_hash"][:HASH_SHOWN],
            lb["version"],
            *([] if in_brief else [_programs(lb), lb["reason"]]),
        )
    return table


def _programs(lb: Mapping[str, Any]) -> str:
    return ", ".join(f"{interface} {how}" for interface, how in lb["attachments"].items())


def node_table(status: dict[str, Any]) -> Table:
    heads = ("node", "address", "phase", "weight", "checks", "fails", "banned until")
    table = Table(*heads, Column("reason", overflow="fold"), box=None)
    for node in status["nodes"]:
        phase = node["phase"]
        checks = " ".join(f"{lb}={count}" for lb, count in sorted(node["checks"].items()))
        table.add_row(
            node["id"],
            node["address"],
            in_colour(phase, _remark(node, status)),
            str(node["weight"]),
            checks,
            str(node["fails"]),
            node["banned_until"] or "",
            escape(node["reason"]),
        )
    return table


def in_colour(phase: str, remark: str = "") -> str:
    return f"[{PHASE_STYLES.get(phase, '')}]{phase}{remark}[/]"


def verdict_table(parts: Sequence[Mapping[str, Any]]) -> Table:
    """Of all load balancers that answered, beside each other; verdicts that no packet had are left out."""
    answered = [part for part in parts if not part["error"]]
    right = [Column(name, justify="right") for name in (*(part["address"] for part in answered), "all", "a second")]
    table = Table("verdict", *right, box=None)
    for name, counted in summed(answered, "verdicts").items():
        if counted["packets"]:
            each = [part["verdicts"].get(name, {"packets": 0})["packets"] for part in answered]
            rate = counted["per_s"]["packets"] if counted["per_s"] else None
            table.add_row(name, *map(str, each), str(counted["packets"]), "" if rate is None else f"{rate:,.1f}")
    return table


def traffic_table(kind: str, parts: Sequence[Mapping[str, Any]]) -> Table:
    """Of all load balancers that answered together, by "service" or by "node"."""
    columns = {"in_packets": "packets in", "in_bytes": "bytes in", "out_packets": "out", "out_bytes": "bytes out"}
    columns["flows"] = "new flows"
    table = Table(kind, *(Column(name, justify="right") for name in columns.values()), box=None)
    for name, counted in summed([part for part in parts if not part["error"]], f"{kind}s").items():
        rates = counted["per_s"]
        cells = [f"{counted[key]}" + (f" ({rates[key]:,.1f}/s)" if rates else "") for key in columns]
        table.add_row(escape(name), *cells)
    return table


def explanation_table(part: Mapping[str, Any]) -> Table:
    """What one load balancer would do with a packet."""
    table = Table(Column(part["address"], no_wrap=True), part["error"] or part["verdict"], box=None)
    if part["error"]:
        return table
    flow, node = part["flow"], part["node"]
    known = (
        f"{flow['state']}, last packet {flow['quiet_s']:.1f} s ago, the node sees port {flow['source_port']}"
        if flow
        else ""
    )
    rows = {
        "meaning": f"{part['meaning']} ({part['action']})",
        "packet": f"{'the first' if part['opening'] else 'in the middle'} of a flow, on the {part['side']} side",
        "service": f"{part['service']}, {part['mode']}" if part["service"] else "",
        "slot": "" if part["slot"] is None else str(part["slot"]),
        "node": f"{node} at {part['node_address']}" if part["node_address"] else node,
        "flow": known,
        "leaves by": part["interface"],
    }
    for name, value in rows.items():
        if value:
            table.add_row(f"  {name}", escape(value))
    for header in part["headers"]:
        table.add_row(
            f"  {header['name']}", escape(", ".join(f"{key} {value}" for key, value in header["fields"].items()))
        )
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
