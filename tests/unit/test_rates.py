"""From two readings of the counters to rates and sums, and what gale-ctl shows of them."""

from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from gale.cli.rates import summed, with_rates
from gale.cli.tables import explanation_table, traffic_table, verdict_table

A, B = "10.0.0.1:9090", "10.0.0.2:9090"


def traffic(packets: int, flows: int = 0) -> dict[str, int]:
    return {"in_packets": packets, "in_bytes": 100 * packets, "out_packets": 0, "out_bytes": 0, "flows": flows}


def reading(address: str, time_ms: int, packets: int = 0, error: str = "", **verdicts: int) -> dict[str, Any]:
    services = {} if error else {"web": traffic(packets, packets // 10)}
    return {
        "address": address,
        "error": error,
        "time_ms": time_ms,
        "verdicts": verdicts,
        "services": services,
        "nodes": services,
    }


def shown(table: Table) -> list[str]:
    """Its lines."""
    console = Console(width=400, file=StringIO())
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_rates_are_growth_over_the_time_the_load_balancer_tells() -> None:
    before, now = reading(A, 1_000, 100, forwarded=10), reading(A, 3_000, 300, forwarded=15, opened=4)
    (told,) = with_rates([before], [now])
    assert told["seconds"] == 2.0
    assert told["verdicts"] == {
        "forwarded": {"packets": 15, "per_s": {"packets": 2.5}},
        "opened": {"packets": 4, "per_s": {"packets": 2.0}},
    }
    assert told["services"]["web"]["in_packets"] == 300
    assert told["nodes"]["web"]["per_s"] == {
        "in_packets": 100.0,
        "in_bytes": 10_000.0,
        "out_packets": 0.0,
        "out_bytes": 0.0,
        "flows": 10.0,
    }


def test_without_a_reading_before_or_after_a_fresh_start_there_are_no_rates() -> None:
    for before in ([], [reading(A, 1_000, error="no connection")], [reading(A, 1_000, 500, forwarded=1)]):
        (told,) = with_rates(before, [reading(A, 3_000, 400, forwarded=99)])
        assert told["verdicts"]["forwarded"] == {"packets": 99, "per_s": None}
        assert told["services"]["web"]["per_s"] is None
    (same,) = with_rates([reading(A, 1_000, 1)], [reading(A, 1_000, 1)])
    assert (same["seconds"], same["services"]["web"]["per_s"]) == (None, None)


def test_a_sum_has_a_rate_when_each_part_has() -> None:
    now = [reading(A, 2_000, 20, forwarded=8), reading(B, 9_000, 40, forwarded=1)]
    both = with_rates([reading(A, 1_000, 10, forwarded=2), reading(B, 7_000, 0, forwarded=0)], now)
    assert summed(both, "verdicts") == {"forwarded": {"packets": 9, "per_s": {"packets": 6.5}}}
    one = with_rates([reading(A, 1_000, 10, forwarded=2)], now)
    assert summed(one, "services")["web"]["in_packets"] == 60
    assert summed(one, "services")["web"]["per_s"] is None


def test_tables_leave_out_verdicts_without_packets_and_load_balancers_without_an_answer() -> None:
    before = [reading(A, 0, 0, forwarded=0, opened=0), reading(B, 0, error="no connection")]
    parts = with_rates(before, [reading(A, 1_000, 7, forwarded=3, opened=0), reading(B, 0, error="no connection")])
    rows = shown(verdict_table(parts))
    assert len(rows) == 2
    assert A in rows[0]
    assert B not in rows[0]
    assert rows[1].split() == ["forwarded", "3", "3", "3.0"]
    assert "7 (7.0/s)" in shown(traffic_table("node", parts))[1]


def test_an_explanation_shows_what_there_is_and_nothing_else() -> None:
    part: dict[str, Any] = {
        "address": A,
        "error": "",
        "opening": False,
        "verdict": "forwarded",
        "action": "redirect",
        "meaning": "client to node",
        "side": "public",
        "mode": "l4",
        "service": "web",
        "slot": 0,
        "node": "n1",
        "node_address": "10.1.0.1",
        "interface": "private",
        "flow": {"source_port": 4_000, "state": "established", "quiet_s": 1.25},
        "headers": [{"name": "ipv4", "fields": {"source": "10.0.0.1", "ttl": "63"}}],
    }
    text = "\n".join(shown(explanation_table(part)))
    for words in (
        A,
        "forwarded",
        "web, l4",
        "n1 at 10.1.0.1",
        "sees port 4000",
        "source 10.0.0.1, ttl 63",
        "in the middle",
    ):
        assert words in text
    nothing = {**part, "slot": None, "flow": None, "node": "", "node_address": "", "service": "", "headers": []}
    text = "\n".join(shown(explanation_table(nothing)))
    for name in ("  slot", "  flow", "  node", "  service", "  ipv4"):
        assert name not in text
    assert "no connection" in str(shown(explanation_table({**part, "error": "no connection"})))
