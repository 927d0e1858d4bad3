"""A program in a namespace that reports in JSON lines, read by a thread of its parent.

It lives no longer than its parent: its standard input is a pipe that ends with the parent, and that ends it.
"""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from gale.lab.flows import Broken, Round
from gale.lab.orders import Order
from gale.lab.processes import entering
from gale.lab.tally import Sample, Tally, sum_of
from gale.lab.traffic import Plan
from gale.lab.view import Report

SAMPLES_KEPT = 3000  # ten minutes of the usual interval
REPORTS_KEPT = 20_000
STOP_WITHIN_S = 6.0  # a request under way may take two timeouts of two seconds each, an order five


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module in this interpreter; -P keeps the working directory out of the import path."""
    return [sys.executable, "-P", "-m", module, *arguments]


class Feed:
    def __init__(
        self,
        namespace: str,
        command: Sequence[str],
        log: Path,
        receive: Callable[[Any], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                entering(namespace, command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._reader = threading.Thread(target=self._read, args=(receive,), daemon=True)
        self._reader.start()

    def _read(self, receive: Callable[[Any], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            receive(json.loads(line))

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End it and read its last lines; by force when it does not end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_WITHIN_S)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


class Traffic(Feed):
    """Requests from the client.

    `samples` are the last intervals, `totals` the whole run per endpoint so far, `final` the generator's last words.
    """

    def __init__(self, namespace: str, plan: Plan, log: Path) -> None:
        self.concurrency = plan.concurrency
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_KEPT)
        self.totals: dict[str, Tally] = {}
        self.final: Sample | None = None
        super().__init__(namespace, python("gale.lab.traffic", *plan.arguments()), log, self._receive)

    def _receive(self, record: Any) -> None:
        sample = Sample.from_json(record)
        if sample.final:
            self.final = sample
            return
        # Replaced, not changed in place: other threads read them meanwhile.
        totals = self.totals
        self.totals = {name: sum_of([totals.get(name, Tally()), tally]) for name, tally in sample.endpoints.items()}
        self.samples.append(sample)

    def between(self, begin_s: float, end_s: float = float("inf"), endpoint: str | None = None) -> Tally:
        """The sum of the kept intervals that lie within two monotonic times, of one endpoint or of all."""
        inside = [s for s in self.samples.copy() if s.at_s - s.interval_s >= begin_s and s.at_s <= end_s]
        return sum_of(s.total if endpoint is None else s.endpoints[endpoint] for s in inside)


class Watch(Feed):
    """What each load balancer says of the cluster, or with `local` of itself alone.

    By server ("IP:PORT") `latest` is the last report, also of a question without an answer, and `said` the last answer;
    `reports` are all, the last ones of a long watch. `environment` may name the certificate to ask with, as for
    gale-ctl.
    """

    def __init__(
        self,
        namespace: str,
        servers: Sequence[str],
        log: Path,
        interval_s: float,
        local: bool,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.latest: dict[str, Report] = {}
        self.said: dict[str, Report] = {}
        self.reports: deque[Report] = deque(maxlen=REPORTS_KEPT)
        arguments = ["--servers", ",".join(servers), "--interval", str(interval_s), *(["--local"] if local else [])]
        super().__init__(namespace, python("gale.lab.watch", *arguments), log, self._receive, environment)

    def _receive(self, record: Any) -> None:
        report = Report(**record)
        self.latest[report.server] = report
        if report.status is not None:
            self.said[report.server] = report
        self.reports.append(report)

    def since(self, begin_s: float) -> list[Report]:
        """What was said after a monotonic time."""
        return [report for report in self.reports.copy() if report.at_s >= begin_s]


class Orders(Feed):
    """What operators ordered and were told, in the order of the answers. `environment`: as for Watch."""

    def __init__(
        self, namespace: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.all: list[Order] = []
        super().__init__(namespace, python("gale.lab.orders", *arguments), log, self._receive, environment)

    def _receive(self, record: Any) -> None:
        self.all.append(Order(**record))

    def done(self, began_s: float = 0.0) -> list[Order]:
        """Those that were given after a monotonic time and are known to be done."""
        return [order for order in self.all.copy() if order.error is None and order.began_s >= began_s]


class Flows(Feed):
    """Flows that the client keeps: what was seen of them, round by round."""

    def __init__(self, namespace: str, arguments: Sequence[str], log: Path) -> None:
        self.rounds: list[Round] = []
        super().__init__(namespace, python("gale.lab.flows", *arguments), log, self._receive)

    def _receive(self, record: Any) -> None:
        self.rounds.append(Round.from_json(record))

    @property
    def last(self) -> Round | None:
        return self.rounds[-1] if self.rounds else None

    @property
    def broken(self) -> list[Broken]:
        return [broken for round_ in self.rounds.copy() for broken in round_.broken]

    def asked_since(self, at_s: float) -> bool:
        """Whether every flow was asked in a round that began after a monotonic time."""
        return self.last is not None and self.last.began_s >= at_s
