"""What is quoted is what was measured: pages and pictures follow from bench/results/; no number is typed by hand."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import page
from bench.plots import plots
from bench.svg import Axis, bars, lines
from bench.tables import contest, extent, short
from bench.traffic import LIMIT_CASE

SVG = "{http://www.w3.org/2000/svg}"
MEASURED = re.compile(r"\d[\d,.]*\s?(?:ns|µs|ms|MB|KB|GB|Mpps|Gbit/s|cores?|%|requests|/s)(?![\w])")


def row(case: str, contestant: str, metric: str, unit: str, median: float) -> dict[str, object]:
    extent = {"median": median, "low": 0.9 * median, "high": 1.1 * median, "runs": 5}
    return {"case": case, "contestant": contestant, "metric": metric, "unit": unit, **extent}


TRAFFIC = [
    row("requests, kept", "none", "requests", "/s", 100_000),
    row("requests, kept", "gale l4", "requests", "/s", 95_000),
    row("requests, kept", "HAProxy", "requests", "/s", 50_000),
    row("requests, kept", "gale l4", "forwarder's CPU", "µs per request", 2),
    row("requests, kept", "HAProxy", "forwarder's CPU", "µs per request", 10),
]

AIMS = [
    {
        "case": "requests, kept",
        "aim": "requests: gale l4 over HAProxy",
        "at least": 2.0,
        "median": 1.9,
        "low": 1.8,
        "high": 2.0,
        "held": False,
    },
    {
        "case": "requests, kept",
        "aim": "forwarder's CPU: gale l4 over HAProxy",
        "at most": 0.25,
        "median": 0.2,
        "low": 0.2,
        "high": 0.2,
        "held": True,
    },
]


def test_pages_and_pictures_follow_from_the_results() -> None:
    """`python -m bench.page` makes them so."""
    assert page.stale(page.load()) == []


@pytest.mark.parametrize("document", page.DOCUMENTS, ids=lambda file: file.name)
def test_no_measured_number_is_typed_by_hand(document: Path) -> None:
    assert MEASURED.findall(page.MARKED.sub("", document.read_text())) == []


def test_a_typed_number_would_be_found() -> None:
    assert MEASURED.findall("it takes 35 ns and 1,016 ms, at 0.84 core and 40% of 3.3 Mpps") == [
        "35 ns",
        "1,016 ms",
        "0.84 core",
        "40%",
        "3.3 Mpps",
    ]


def test_a_changed_result_makes_a_page_stale() -> None:
    results = page.load()
    figures = [{**it, "ns": it["ns"] + 1} for it in results["packet"]]
    assert set(page.stale({**results, "packet": figures})) >= {"README.md", "docs/PERFORMANCE.md"}


def test_others_are_shown_when_they_are_measured() -> None:
    results = {**page.load(), "traffic": {"about": {}, "results": TRAFFIC, "aims": AIMS}}
    text = page.filled("<!-- begin: traffic -->\n<!-- end -->\n", results)
    assert "| requests, kept | HAProxy | 50,000 (45,000 to 55,000) | 10 (9 to 11) |" in text
    assert "../bench/results/traffic-requests-s.svg" in text
    assert "../bench/results/traffic-forwarder-s-cpu-s-per-request.svg" in text


def test_aims_say_whether_they_are_held() -> None:
    text = page.filled("<!-- begin: traffic -->\n<!-- end -->\n", {"traffic": {"results": TRAFFIC, "aims": AIMS}})
    assert "| requests: gale l4 over HAProxy | requests, kept | at least 2 | 1.9 (1.8 to 2) | **missed** |" in text
    assert "| forwarder's CPU: gale l4 over HAProxy | requests, kept | at most 0.25 | 0.2 | held |" in text


def test_the_readme_quotes_aims_where_the_forwarder_is_the_limit() -> None:
    limited = [{**it, "case": LIMIT_CASE} for it in AIMS]
    results = {**page.load(), "traffic": {"about": {}, "results": TRAFFIC, "aims": [*AIMS, *limited]}}
    text = page.filled("<!-- begin: headline -->\n<!-- end -->\n", results)
    assert f"| {LIMIT_CASE}: gale l4 over HAProxy, requests | 1.9 times |" in text
    assert "requests, kept" not in text


def test_a_cell_that_was_not_measured_is_empty() -> None:
    assert "| requests, kept | none | 100,000 (90,000 to 110,000) |  |" in contest(TRAFFIC, ["requests, kept"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123, "0.0123"),
        (1.5, "1.5"),
        (2, "2"),
        (12.34, "12.3"),
        (43, "43"),
        (123.4, "123"),
        (65432, "65,432"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_runs_that_agree_are_one_number() -> None:
    assert extent({"median": 5, "low": 5, "high": 5}) == "5"


def test_pictures_are_well_formed_and_always_the_same() -> None:
    results = {**page.load(), "traffic": {"about": {}, "results": TRAFFIC}}
    drawn = plots(results)
    assert drawn == plots(results)
    for text in drawn.values():
        root = ET.fromstring(text)
        assert root.tag == f"{SVG}svg"
        assert "prefers-color-scheme: dark" in text
        assert "nan" not in text


def test_a_line_is_where_its_values_are() -> None:
    """Twice the value stands twice as high, ten times as many nodes one step to the right."""
    text = lines(
        "t", Axis("nodes", log=True), Axis("ms"), {"a": [(10, (1, 1, 1)), (100, (2, 2, 2)), (1000, (4, 4, 4))]}
    )
    line = ET.fromstring(text).find(f"{SVG}polyline")
    assert line is not None
    (x1, y1), (x2, y2), (x3, y3) = (map(float, place.split(",")) for place in line.attrib["points"].split())
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y2 - y3 == pytest.approx(2 * (y1 - y2), abs=0.4)


def test_a_bar_is_as_high_as_its_value() -> None:
    text = bars("t", ["one", "two"], Axis("ms"), {"a": [(1, 1, 1), None], "b": [(3, 2, 4), (2, 2, 2)]})
    heights = [
        float(bar.attrib["height"]) for bar in ET.fromstring(text).iter(f"{SVG}rect") if "bar" in bar.attrib["class"]
    ]
    assert heights == [pytest.approx(heights[0] * times, abs=0.5) for times in (1, 3, 2)]
