"""How long to wait before the next try: growing from try to try, and spread by chance so that a thousand nodes that
lost the same load balancer do not come back in the same instant ("full jitter": anything up to the grown delay, but
never less than a tenth of it)."""


def backoff_s(attempt: int, chance: float, first_s: float = 0.2, most_s: float = 5.0) -> float:
    """Seconds before try `attempt` (0 is the first retry). `chance` is in [0, 1)."""
    grown = min(most_s, first_s * 2.0 ** min(attempt, 16))
    return grown * (0.1 + 0.9 * chance)
