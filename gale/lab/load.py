"""wrk as a lab's heavy traffic: connections that are kept, as many requests as go through unless a script paces them,
and every error counted."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gale.errors import LabError

THREADS, CONNECTIONS = 2, 32
LONGEST_S = 3_600
END_WITHIN_S = 15
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class LoadResult:
    """`errors`: connects, reads, writes, timeouts and answers other than 2xx and 3xx, together."""

    requests: int
    seconds: float
    errors: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def parse(said: str) -> LoadResult:
    """What wrk says at its end. Raises LabError when it says something else."""
    summary = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h)\b", said)
    if summary is None:
        raise LabError(f"wrk failed: {' '.join(said.split()) or 'it said nothing'}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    counts = [*(errors.groups() if errors else ()), *(refused.groups() if refused else ())]
    return LoadResult(int(summary[1]), float(summary[2]) * UNITS[summary[3]], sum(map(int, counts)))


class Load:
    """One wrk, from its start to `end`. `entering` runs a command line where the client is; `script` is in Lua."""

    def __init__(
        self, entering: Sequence[str], endpoint: str, connections: int = CONNECTIONS, script: Path | None = None
    ) -> None:
        if shutil.which("wrk") is None:
            raise LabError("wrk is missing: apt-get install wrk")
        how = [f"-t{THREADS}", f"-c{connections}", f"-d{LONGEST_S}s", *(["-s", str(script)] if script else [])]
        self._process = subprocess.Popen(
            [*entering, "wrk", *how, f"http://{endpoint}/"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.began_s = time.monotonic()
        self.result: LoadResult | None = None

    def end(self) -> LoadResult:
        """Interrupt it, which makes it say what it counted. Answers that are still out then are no errors."""
        if self.result is None:
            self._process.send_signal(signal.SIGINT)
            try:
                said, _ = self._process.communicate(timeout=END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                said, _ = self._process.communicate()
            self.result = parse(said)
        return self.result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.end()
        elif self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
