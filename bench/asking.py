"""What clients do, and what it cost the forwarder's core: one run of wrk or iperf3, as figures by their names.

CPU is that of the forwarder's core from /proc/stat: all time in which it was not idle, so with interrupts and softirqs,
and without what ran at a lower priority (`nice`) or on another machine (`steal`). The kernel counts idle time to the
microsecond, and the rest follows from the clock.
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.contestants import Asked
from bench.stand import FORWARDER_CORE, Stand
from gale.errors import HostError

THREADS, CONNECTIONS = 3, 24
SCRIPT = Path(__file__).with_name("requests.lua")
KINDS: dict[str, list[str]] = {"kept": [], "one per request": ["-H", "Connection: close"]}
STREAMS = (1, 10)
WAYS = {"to the node": [], "from the node": ["--reverse"]}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NICE, IDLE, IOWAIT, STEAL = 1, 3, 4, 7

Figures = dict[str, tuple[str, float]]
"""By metric: unit and value."""


@dataclass(frozen=True, slots=True)
class Moment:
    """`away_s`: what a core has not worked for us so far."""

    at_s: float
    away_s: float

    def busy_s(self, since: "Moment") -> float:
        return max(0.0, (self.at_s - since.at_s) - (self.away_s - since.away_s))


def moment(core: int = FORWARDER_CORE) -> Moment:
    return Moment(time.monotonic(), away_s(Path("/proc/stat").read_text(), core))


def away_s(stat: str, core: int) -> float:
    """Of a text of /proc/stat. Raises HostError when it does not tell of that core."""
    line = re.search(rf"^cpu{core} (.+)$", stat, re.MULTILINE)
    if line is None:
        raise HostError(f"/proc/stat has no cpu{core}: a core that is on line is needed")
    times = [int(word) for word in line[1].split()]
    return sum(times[kind] for kind in (NICE, IDLE, IOWAIT, STEAL)) / TICKS_PER_S


def requests(stand: Stand, asked: Asked, seconds: int, *, kind: str) -> Figures:
    """Raises HostError when any request failed: then there is no figure."""
    wrk = ["wrk", f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT), *KINDS[kind]]
    targets = "TARGETS=" + " ".join(asked.web)
    said, busy_s = _measured(stand, ["env", targets, *wrk, f"http://{asked.web[0]}/"], seconds)
    return request_figures(last_words(said), busy_s)


def last_words(said: str) -> dict[str, float]:
    """What bench/requests.lua says at the end of wrk's output."""
    try:
        words: dict[str, float] = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        raise HostError(f"wrk: {' '.join(said.split()) or 'it said nothing'}") from None
    return words


def request_figures(said: Mapping[str, float], busy_s: float) -> Figures:
    if said["errors"] or not said["requests"]:
        raise HostError(f"wrk: {said['errors']:.0f} of {said['requests']:.0f} requests failed, so there is no figure")
    return {
        "requests": ("/s", said["requests"] / said["seconds"]),
        "p50": ("ms", said["p50_us"] / 1000),
        "p99": ("ms", said["p99_us"] / 1000),
        "p99.9": ("ms", said["p999_us"] / 1000),
        "forwarder's CPU": ("µs per request", busy_s * 1e6 / said["requests"]),
    }


def bulk(stand: Stand, asked: Asked, seconds: int, *, streams: int, way: str) -> Figures:
    host, port = asked.bulk
    iperf = ["iperf3", "--client", host, "--port", str(port), "--parallel", str(streams), *WAYS[way], "--json"]
    said, busy_s = _measured(stand, [*iperf, "--time", str(seconds)], seconds)
    return bulk_figures(json.loads(said), busy_s)


def bulk_figures(said: Mapping[str, Any], busy_s: float) -> Figures:
    if "error" in said:
        raise HostError(f"iperf3: {said['error']}")
    received = said["end"]["sum_received"]
    return {
        "throughput": ("Gbit/s", received["bits_per_second"] / 1e9),
        "forwarder's CPU": ("ms per GB", busy_s * 1e12 / received["bytes"]),
    }


def _measured(stand: Stand, command: list[str], seconds: int) -> tuple[str, float]:
    """What a client says, and how long the forwarder's core worked meanwhile."""
    before = moment()
    done = stand.lab.run("client", command, timeout_s=seconds + 20)
    busy_s = moment().busy_s(before)
    if done.returncode and not done.stdout:
        raise HostError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout, busy_s


Ask = Callable[[Stand, Asked, int], Figures]


def asked_cases() -> dict[str, Ask]:
    """By name, of real clients."""
    made: dict[str, Ask] = {f"requests, {kind}": partial(requests, kind=kind) for kind in KINDS}
    for way in WAYS:
        for streams in STREAMS:
            made[f"bulk {way}, {streams} stream{'s' * (streams > 1)}"] = partial(bulk, streams=streams, way=way)
    return made
