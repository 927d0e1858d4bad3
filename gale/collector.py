"""Python's garbage collector, kept out of the way of the one loop.

A full collection stops the loop for as long as there is much to look at: a second with ten thousand nodes, more than an
election takes.
"""

import gc


def calm_the_collector() -> None:
    """What is here now stays anyway and is looked at no more; the next full collection comes after millions of objects
    that nobody has freed, which checks never leave behind and calls two at a time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 1_000)
