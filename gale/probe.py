"""Is the service beside this agent well? Asked by tcp, http or a command, as `[health]` in node.toml says.

One failed probe may be chance; two in a row are an answer. One good probe makes the service well again: the load
balancers then count `checks_before_routing` checks of their own before they send it anything.
"""

import asyncio
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException

import structlog

from gale.core.probes import CommandProbe, HttpProbe, Probe, TcpProbe
from gale.core.tally import Spent

log = structlog.get_logger()

FAILS = 2


async def problem(probe: Probe, timeout_s: float) -> str | None:
    """Probe once; None when the service is well, else what was wrong."""
    try:
        async with asyncio.timeout(timeout_s):
            match probe:
                case TcpProbe(port):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                case HttpProbe(url):
                    await asyncio.to_thread(_get, url, timeout_s)
                case CommandProbe(command):
                    return await _run(command)
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except FileNotFoundError as error:
        return f"{error.filename}: no such command"
    except OSError as error:  # of urllib too
        return error.strerror or str(error)
    except HTTPException as error:
        return f"not an HTTP answer: {error!r}"
    return None


class Prober:
    """What the probes amount to. Without a probe the service is taken to be well as long as the agent runs."""

    def __init__(self, probe: Probe | None, interval_s: float, timeout_s: float) -> None:
        self._asking = asyncio.Event()
        self.ask(probe, interval_s, timeout_s)
        self._failed = FAILS  # not well until it was seen well
        self.serving = probe is None
        self.reason = "" if self.serving else "the service has not been seen well yet"
        self.changed = asyncio.Event()
        self.counted = {"passed": Spent(), "failed": Spent()}

    def ask(self, probe: Probe | None, interval_s: float, timeout_s: float) -> None:
        """From now on this. What was found before counts until there is an answer."""
        self._probe, self._interval_s, self._timeout_s = probe, interval_s, timeout_s
        self._asking.set()

    async def run(self) -> None:
        """Until cancelled; `changed` is replaced by a new event each time it is set."""
        while True:
            self._asking.clear()
            self.weigh(await self._result(self._probe) if self._probe else None)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asking.wait(), self._interval_s if self._probe else None)

    async def _result(self, probe: Probe) -> str | None:
        begun_s = time.monotonic()
        what = await problem(probe, self._timeout_s)
        self.counted["failed" if what else "passed"].add(time.monotonic() - begun_s)
        return what

    def weigh(self, what: str | None) -> None:
        """Take one probe's result."""
        self._failed = self._failed + 1 if what else 0
        serving = self.serving if 0 < self._failed < FAILS else what is None
        if serving == self.serving:
            return
        self.serving = serving
        self.reason = f"the service is not well: {what}" if what else ""
        if serving:
            log.info("the service is well")
        else:
            log.warning("the service is not well", reason=what)
        self.changed.set()
        self.changed = asyncio.Event()


def _get(url: str, timeout_s: float) -> None:
    """Raises OSError (urllib's errors are) for anything but an answer below 400; environment proxies are not asked."""
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout_s).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        raise


async def _run(command: tuple[str, ...]) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return f"{command[0]} ended with code {code}" if code else None
