"""What two load balancers tell each other before anything else, and whether they then go on. Pure.

Both sides judge the other's hello by the same rule, so both know, and both say, why they do not.
"""

from dataclasses import dataclass, field

from gale.core.membership import check_members
from gale.core.shared import SharedConfig, differences


@dataclass(frozen=True, slots=True)
class Hello:
    """`members`: the list this load balancer is configured with, sorted. `fresh`: it has no log and never had one.
    `key`: for datagrams to it and from it, until it starts anew (gale/raft/signs.py)."""

    address: str
    members: tuple[str, ...] = ()
    shared: SharedConfig = field(default_factory=SharedConfig)
    enforces: bool = False
    fresh: bool = False
    key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Judgement:
    """`ignored`: why nothing is exchanged with the peer; `differs`: what is only told. Both empty when all is well."""

    ignored: str = ""
    differs: str = ""


def judge(mine: Hello, theirs: Hello) -> Judgement:
    if reason := check_members(mine.members, theirs.members):
        return Judgement(ignored=f"its list of load balancers: {reason}")
    difference = differences(mine.shared, theirs.shared)
    if difference and (mine.enforces or theirs.enforces):
        who = "this load balancer enforces" if mine.enforces else "it enforces"
        return Judgement(ignored=f"its configuration differs, and {who} a single one: {difference}")
    return Judgement(differs="; ".join(filter(None, (difference, _other_list(mine.members, theirs.members)))))


def _other_list(mine: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    """While a list changes, by one entry, it is told which."""
    added = [f"it lists {address} too" for address in theirs if address not in mine]
    missing = [f"it does not list {address}" for address in mine if address not in theirs]
    return "; ".join(added + missing)
