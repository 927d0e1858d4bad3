"""How many turns of the loop something takes: work that holds the loop takes one, however long it is."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def turns(work: Coroutine[Any, Any, T]) -> tuple[T, int]:
    """Its result, and how often others had their turn meanwhile."""
    taken = 0

    async def others() -> None:
        nonlocal taken
        while True:
            await asyncio.sleep(0)
            taken += 1

    counting = asyncio.create_task(others())
    try:
        return await work, taken
    finally:
        counting.cancel()
