"""Membership: the list of load balancers, which is configured, and how it may change without two majorities.

The list in force is in the state: the last one that every load balancer on it has announced as its own. A load balancer
may run with that list, or with one that differs from it by one member. A majority of a list and a majority of a list
with one member more always share a load balancer, so those who go on with the old list and those who have the new one
cannot decide against each other. The next change waits until this one is in force.

That leaves two different changes begun at once. From an odd number their majorities still meet; from an even number
they need not: with {A, B, C, D} in force, {B, C} is a majority without A, and {A, D} is one without B. Therefore who
runs with a list that is not in force asks for a majority of both (`agreed`): any two of those share a load balancer,
because each holds a majority of the list in force.

Where nothing is in force yet, the configured list counts.
"""

from collections.abc import Collection, Set


def check_members(in_force: Collection[str], configured: Collection[str]) -> str:
    """Empty when a load balancer with this list may run, else one line that explains."""
    if not in_force or len(set(in_force) ^ set(configured)) <= 1:
        return ""
    adds, lacks = set(configured) - set(in_force), set(in_force) - set(configured)
    changes = [f"{verb} {', '.join(sorted(some))}" for verb, some in (("adds", adds), ("lacks", lacks)) if some]
    return (
        f"it lists {', '.join(sorted(configured))}; in force are"
        f" {', '.join(sorted(in_force))}: it {' and '.join(changes)}; change one at a time, on every load balancer"
    )


def agreed(yes: Set[str], in_force: Collection[str], configured: Collection[str]) -> bool:
    """Whether these load balancers decide: a majority of the configured list, and of the one in force."""
    return all(2 * len(yes & set(members)) > len(set(members)) for members in (configured, in_force) if members)
