"""Long lists a little at a time: an answer about ten thousand nodes takes as long as it did, and nothing waits for it.

What is gone through must not change meanwhile: a state does not, it is replaced.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

STEP = 500

T = TypeVar("T")


async def in_steps(items: Iterable[T]) -> AsyncIterator[T]:
    """Each of them; after every STEP the loop does its other work."""
    for place, item in enumerate(items, 1):
        yield item
        if place % STEP == 0:
            await asyncio.sleep(0)
