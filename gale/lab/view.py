"""What the load balancers' own words about the cluster amount to: pure questions to `gale-ctl cluster status` answers.

Each load balancer is asked for itself, because the point is that they agree: a node "routes" for the lab when every
load balancer that runs says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """One load balancer's last answer: its status, or the error that came instead."""

    at_s: float
    server: str
    status: Mapping[str, Any] | None
    error: str | None


def host(address: str) -> str:
    return address.rpartition(":")[0] or address


def leader(reports: Iterable[Report]) -> str | None:
    """The private address of the leader, when all who see a quorum name the same one."""
    named = {report.status["leader"] for report in reports if report.status and report.status["quorum"]}
    only = named.pop() if len(named) == 1 else None
    return host(only) if only else None


def phases(report: Report) -> dict[str, str]:
    """The phase of each node, by name, as one load balancer sees it."""
    return {node["id"]: node["phase"] for node in report.status["nodes"]} if report.status else {}


def own_entry(report: Report) -> Mapping[str, Any] | None:
    """What a load balancer says of itself."""
    if report.status is None:
        return None
    entries = [entry for entry in report.status["load_balancers"] if host(entry["address"]) == host(report.server)]
    return entries[0] if entries else None


def missing_for_routing(reports: Mapping[str, Report], servers: Iterable[str], nodes: Iterable[str]) -> str | None:
    """What is missing until every node routes on every load balancer, in words; None when nothing is."""
    for server in servers:
        report = reports.get(server)
        if report is None or report.status is None:
            return f"{host(server)} has not answered" + (f" ({report.error})" if report else "")
        if not report.status["quorum"]:
            return f"{host(server)} sees no quorum"
        seen = phases(report)
        for node in nodes:
            if seen.get(node) != "routing":
                return f"{node} is {seen.get(node, 'unknown')} on {host(server)}"
    return missing_for_level(reports, servers)


def missing_for_level(reports: Mapping[str, Report], servers: Iterable[str], key: str = "generation") -> str | None:
    """What is missing until every load balancer says the same of itself; None when nothing is.

    `key`: "generation" for what is forwarded, "applied_index" for how far the log is applied.
    """
    values = {}
    for server in servers:
        report = reports.get(server)
        entry = own_entry(report) if report else None
        if entry is None:
            return f"{host(server)} has not answered"
        values[host(server)] = entry[key]
    if len(set(values.values())) > 1:
        return f"{key} differs: " + ", ".join(f"{server} has {value}" for server, value in values.items())
    return None


def missing_for_removal(reports: Mapping[str, Report], servers: Iterable[str], node: str) -> str | None:
    """What is missing until no load balancer routes to a node; None when nothing is."""
    for server in servers:
        report = reports.get(server)
        if report is None or report.status is None:
            return f"{host(server)} has not answered"
        if phases(report).get(node) == "routing":
            return f"{node} still routes on {host(server)}"
    return None


def missing_for_leader(reports: Mapping[str, Report], servers: Sequence[str], other_than: str | None) -> str | None:
    """What is missing until all these load balancers name one leader that is not `other_than`; None when nothing is."""
    asked = [report for server in servers if (report := reports.get(server)) and report.status]
    named = leader(asked)
    if len(asked) < len(servers):
        return "not every load balancer has answered"
    if alone := [host(report.server) for report in asked if report.status and not report.status["quorum"]]:
        return f"{alone[0]} sees no quorum"
    if named is None:
        return "they do not agree on a leader"
    return f"{named} still leads" if named == other_than else None
