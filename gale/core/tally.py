"""What a node counts of its own doing, for those who watch it. Counts begin anew with gale-node."""

from dataclasses import dataclass


@dataclass(slots=True)
class Checks:
    """With one load balancer. `answers`: when there is news, and to one of some checks otherwise; `refusals`: of these;
    `failed`: times that it could not be reached, closed the connection or did not answer in time."""

    sent: int = 0
    answers: int = 0
    refusals: int = 0
    failed: int = 0


@dataclass(slots=True)
class Spent:
    """How often something was done, and how long that took in all."""

    times: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.times += 1
        self.seconds += seconds
