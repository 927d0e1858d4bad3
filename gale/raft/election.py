"""Who may stand for leader: the vote before the vote. Pure.

A replica that was cut off and comes back must not depose a leader that is well, so it asks before it raises its term
(the pre-vote of Ongaro's thesis, section 9.6, which the library lacks): would you vote for me? Nobody who still hears
the leader would, and nobody whose log is newer. Only a majority of yes starts the election that the library knows.

One case is let through whatever the leader: a replica whose term is above ours cannot follow a leader of ours, so
without an election it would stay outside for good. The election itself judges its log.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """`hears_leader`: it leads itself, or has heard from its leader just now and is connected to it."""

    term: int
    last_log_term: int
    last_log_index: int
    hears_leader: bool = False


def would_vote(candidate: Standing, voter: Standing) -> bool:
    if candidate.term != voter.term:
        return candidate.term > voter.term
    if voter.hears_leader:
        return False
    return (candidate.last_log_term, candidate.last_log_index) >= (voter.last_log_term, voter.last_log_index)
