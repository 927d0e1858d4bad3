"""gale-ctl top: the cluster as it is at work, on the whole terminal, until q or Ctrl-C.

Every reading is the status and the counters; rates are those between two of them. What is busiest comes first, and as
much is shown as there is room for. What is wrong, a load balancer that does not answer among it, stands below the first
line.
"""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from gale.cli.asking import Asking, stays, unanswered
from gale.cli.ctl_dataplane import Parts, read_counters
from gale.cli.rates import PACKETS, summed, with_rates
from gale.cli.tables import in_colour, load_balancer_table, summary
from gale.errors import RemoteError

TRAFFIC = {"in_packets": "packets in/s", "in_bytes": "bytes in/s", "out_packets": "out/s", "out_bytes": "bytes out/s"}
TRAFFIC["flows"] = "new flows/s"
LEAVE = b"qQ"
_AROUND = 8  # lines that are no rows: heads of tables, the summary, the last line
_FEWEST = 3

Rows = Mapping[str, Mapping[str, Any]]


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3_600),
    default=1.0,
    show_default=True,
    help="Seconds between two readings.",
)
@stays
async def top(asking: Asking, interval: float) -> None:
    """Watch the cluster at work: load balancers, nodes, rates and verdicts, the busiest first. q or Ctrl-C leaves.

    It takes a terminal; for files and programs there is counters --watch."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top takes a terminal: gale-ctl counters --watch writes into files and pipes")
    status, counted = await asyncio.gather(asking.cluster_status(), read_counters(asking))
    console, parts, trouble = Console(emoji=False), with_rates([], counted), ""
    with leaving() as left, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(board(status, parts, console.height, trouble), refresh=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(left.wait(), interval)
                return
            try:
                status, now = await asyncio.gather(asking.cluster_status(), read_counters(asking))
            except RemoteError as error:
                trouble = f"what is shown is older: {error}"
                continue
            parts, counted, trouble = with_rates(counted, now), now, ""


@contextmanager
def leaving() -> Iterator[asyncio.Event]:
    """Set when q or Ctrl-C is pressed; keys are not echoed, and the terminal is then as it was."""
    loop, keyboard, left = asyncio.get_running_loop(), sys.stdin.fileno(), asyncio.Event()
    before = termios.tcgetattr(keyboard)

    def pressed() -> None:
        with suppress(OSError):  # the terminal is gone
            key = os.read(keyboard, 1)
            if key and key not in LEAVE:
                return
        left.set()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, pressed)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, left.set)
    try:
        yield left
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def board(status: dict[str, Any], parts: Parts, height: int, trouble: str = "") -> RenderableType:
    """`height`: lines of the terminal."""
    answered = [part for part in parts if not part["error"]]
    services, verdicts = summed(answered, "services"), summed(answered, "verdicts")
    phases = {node["id"]: node["phase"] for node in status["nodes"]}
    nodes = {**{name: {} for name in phases}, **summed(answered, "nodes")}
    wrong = troubles(status, parts, trouble)
    used = _AROUND + len(wrong) + len(status["load_balancers"]) + min(len(services), _FEWEST)
    room = max(2 * _FEWEST, height - used)
    seen = sum(1 for counted in verdicts.values() if counted[PACKETS])
    of_nodes = max(_FEWEST, min(len(nodes), room - min(seen, room // 2)))
    return Group(
        Text(summary(status), no_wrap=True, overflow="ellipsis"),
        *(Text(line, style="red") for line in wrong),
        load_balancer_table(status, in_brief=True),
        traffic("service", services, {}, _FEWEST),
        traffic("node", nodes, phases, of_nodes),
        verdict_rates(verdicts, max(_FEWEST, room - of_nodes)),
        Text("q leaves", style="dim"),
    )


def troubles(status: dict[str, Any], parts: Parts, trouble: str) -> list[str]:
    """What is wrong, one line each."""
    reasons = {lb["address"]: lb["reason"] for lb in status["load_balancers"] if lb["reason"]}
    others = [part for part in parts if part["address"] not in reasons]
    return [*filter(None, [trouble]), *(f"{lb}: {reason}" for lb, reason in reasons.items()), *unanswered(others)]


def traffic(kind: str, rows: Rows, phases: Mapping[str, str], most: int) -> Table:
    """Rates of all load balancers together: the busiest rows."""
    phase = ["phase"] if phases else []
    right = (Column(name, justify="right") for name in TRAFFIC.values())
    table = Table(_titled(kind, len(rows), most), *phase, *right, box=None)
    for name in busiest(rows, "in_packets")[:most]:
        rates = rows[name].get("per_s") or {}
        cells = (amount(rates[key]) if key in rates else "" for key in TRAFFIC)
        table.add_row(escape(name), *([in_colour(phases.get(name, "gone"))] if phases else []), *cells)
    return table


def verdict_rates(rows: Rows, most: int) -> Table:
    counted = {name: row for name, row in rows.items() if row[PACKETS]}
    right = (Column(name, justify="right") for name in ("packets/s", "packets in all"))
    table = Table(_titled("verdict", len(counted), most), *right, box=None)
    for name in busiest(counted, PACKETS)[:most]:
        rates = counted[name]["per_s"]
        table.add_row(name, amount(rates[PACKETS]) if rates else "", f"{counted[name][PACKETS]:,}")
    return table


def busiest(rows: Rows, key: str) -> Sequence[str]:
    """Names; by rate, then by what was counted in all."""

    def work(name: str) -> tuple[float, int]:
        return -((rows[name].get("per_s") or {}).get(key, 0.0)), -rows[name].get(key, 0)

    return sorted(sorted(rows), key=work)


def amount(number: float) -> str:
    """In few digits: 950, 12.3k, 4.56M. What rounds to a thousand has the next unit."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1_000
    return f"{number:,.0f}T"


def _titled(kind: str, there: int, most: int) -> str:
    return kind if there <= most else f"{kind} ({most} of {there})"
