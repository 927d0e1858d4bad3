"""What a service manager hears, on a socket as systemd's."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gale.supervisor import Standing, Supervisor

WATCHDOG_S = 0.03


class Manager:
    """Listens as systemd does, and remembers what it was told."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(path.replace("@", "\0"))
        self.environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}

    def heard(self) -> list[list[str]]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["/notify", "@"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(f"@{tmp_path}" if request.param == "@" else f"{tmp_path}{request.param}")
    yield made
    made.close()


async def turned() -> None:
    """A loop that turns."""


async def reported(supervisor: Supervisor, standings: list[Standing], seconds: float = 0.2) -> None:
    """Each standing once, the last one for the rest of the time."""
    task = asyncio.create_task(
        supervisor.report(turned, lambda: standings.pop(0) if len(standings) > 1 else standings[0])
    )
    await asyncio.sleep(seconds)
    assert not task.done()
    task.cancel()


async def test_a_start_is_extended_until_it_is_ready_and_then_the_watchdog_is_fed(manager: Manager) -> None:
    standings = [Standing(False, "waits"), Standing(False, "waits"), Standing(True, "forwards")]
    await reported(Supervisor.of(manager.environment), standings)
    first, second, third, *more = manager.heard()
    assert first == ["EXTEND_TIMEOUT_USEC=30000000", "STATUS=waits"]
    assert second == ["EXTEND_TIMEOUT_USEC=30000000"]
    assert third == ["READY=1", "WATCHDOG=1", "STATUS=forwards"]
    assert len(more) >= 0.1 / WATCHDOG_S  # the watchdog's time is shorter than a second
    assert all(said == ["WATCHDOG=1"] for said in more)


async def test_who_was_ready_once_stays_so(manager: Manager) -> None:
    await reported(Supervisor.of(manager.environment), [Standing(True, "answers"), Standing(False, "no answer")])
    _, second, *_ = manager.heard()
    assert second == ["WATCHDOG=1", "STATUS=no answer"]


async def test_work_that_does_not_go_on_feeds_no_watchdog_although_the_loop_turns(manager: Manager) -> None:
    stuck = asyncio.Event()

    async def never() -> None:
        await stuck.wait()

    task = asyncio.create_task(Supervisor.of(manager.environment).report(never, lambda: Standing(True, "forwards")))
    await asyncio.sleep(5 * WATCHDOG_S)
    task.cancel()
    assert manager.heard() == []


async def test_reload_and_stop(manager: Manager) -> None:
    supervisor = Supervisor.of(manager.environment)
    await reported(supervisor, [Standing(True, "forwards")], 0.01)
    manager.heard()
    supervisor.reloading()
    supervisor.reloaded("nothing new")
    supervisor.stopping("says goodbye", within_s=90)
    begun, done, end = manager.heard()
    assert begun[0] == "RELOADING=1"
    assert begun[1].startswith("MONOTONIC_USEC=")
    assert done == ["READY=1", "STATUS=nothing new"]
    assert end == ["STOPPING=1", "STATUS=says goodbye", "EXTEND_TIMEOUT_USEC=90000000"]


async def test_the_watchdog_of_another_process_sets_no_pace(manager: Manager) -> None:
    supervisor = Supervisor.of(manager.environment | {"WATCHDOG_PID": str(os.getpid() + 1)})
    await reported(supervisor, [Standing(True, "forwards")])
    assert len(manager.heard()) == 1  # a second passes to the next


async def test_without_a_manager_nothing_is_said_and_nothing_fails(tmp_path: Path) -> None:
    await reported(Supervisor.of({}), [Standing(True, "forwards")], 0.01)
    Supervisor(f"{tmp_path}/nobody").stopping("says goodbye")
