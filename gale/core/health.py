"""May a node receive traffic? The judgement of several load balancers that each see it with their own eyes.

Every load balancer reports how many checks in a row it had from a node, up to `checks_before_routing` ("passed"), and
0 once it heard nothing for `checks_timeout` ("missed"). For one node, among the load balancers that are alive and
accepted and that the node reports to:

    expected   how many there are
    passed     those that have it at `checks_before_routing`
    missed     those that have it at 0 after they had it higher

    rises when   2 * passed > expected       a majority vouches for it
    falls when   missed >= passed, missed>0  of those with an opinion, no majority does any more
    stays        otherwise

Rising implies not falling, and what lies between keeps a node where it is: a load balancer that was just started and
counts 1, 2, 3 has no opinion yet and must not remove a node that the others know well. One load balancer with a broken
cable is one `missed` against two `passed`: it neither removes a node nor keeps one.

`expected` is known before every load balancer has heard from the node, because the node says how many it reports to.
Without that the first load balancer to see three checks would be a majority of one.
"""

from collections.abc import Mapping, Set
from enum import Enum


class Judgement(Enum):
    RISES = "rises"
    FALLS = "falls"
    STAYS = "stays"


def judge(checks: Mapping[str, int], reports_to: int, voters: Set[str], needed: int) -> Judgement:
    """Judge one node.

    checks      load balancer -> checks passed in a row; no entry when it never heard from the node
    reports_to  how many load balancers the node says it reports to
    voters      the load balancers that are alive and accepted
    needed      `checks_before_routing`
    """
    opinions = [passed for load_balancer, passed in checks.items() if load_balancer in voters]
    unheard = max(0, reports_to - len(checks))
    expected = len(opinions) + min(unheard, len(voters - checks.keys()))
    passed, missed = sum(count >= needed for count in opinions), opinions.count(0)
    if 2 * passed > expected:
        return Judgement.RISES
    if missed and missed >= passed:
        return Judgement.FALLS
    return Judgement.STAYS
