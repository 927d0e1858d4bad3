"""Questions to the kernel's network configuration, from anywhere: also from within a running event loop.

pyroute2 drives its sockets with an event loop of its own, and a thread can run but one. So a question is asked in a
thread of its own, which takes a millisecond or two and keeps the caller's network namespace.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

Answer = TypeVar("Answer")


def ask(question: Callable[[Any], Answer]) -> Answer:
    """`question(ipr)` with an IPRoute; its exceptions come through."""

    def answer() -> Answer:
        with IPRoute() as ipr:
            return question(ipr)

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(answer).result()


def unless(code: int, request: Callable[[], object]) -> None:
    """Does the request; that there is nothing to do, which the kernel says with `code`, is no error."""
    try:
        request()
    except NetlinkError as error:
        if error.code != code:
            raise
