"""The alerts and the dashboard in monitoring/: every name that they use is told by gale, and Prometheus takes them."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from gale.web import families, node_families
from gale.web.exposition import Family

MONITORING = Path(__file__).parents[2] / "monitoring"
ALERTS = MONITORING / "gale-alerts.yml"
ALERTS_TEST = MONITORING / "gale-alerts-test.yml"
DASHBOARD = MONITORING / "gale-dashboard.json"

KNOWN = {**vars(families), **vars(node_families)}.values()
TOLD = {family.name: family for family in KNOWN if isinstance(family, Family)}
ANY = {"job", "instance"}
COLUMNS = 24
USED = re.compile(r"\b(gale_\w+)(?:\{([^}]*)\})?")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def variables() -> list[str]:
    asked = json.loads(DASHBOARD.read_text())["templating"]["list"]
    return [str(variable["definition"]) for variable in asked if "definition" in variable]


def given() -> list[str]:
    tests = yaml.safe_load(ALERTS_TEST.read_text())["tests"]
    return [each["series"] for test in tests for each in test["input_series"]]


def promtool(*arguments: str) -> str:
    """What it says; empty when all is well."""
    done = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=30, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in rules()), *queries(), *variables(), *given()])
def test_only_what_is_told_is_asked_for(expression: str) -> None:
    names = USED.findall(expression)
    assert names or re.search(r"\b(up|process_\w+)\{", expression)
    for name, selector in names:
        assert name in TOLD
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        assert asked <= {*TOLD[name].labels, *ANY}, name
    grouped = {label for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in labels.split(", ")}
    assert grouped <= {label for name, _ in names for label in TOLD[name].labels} | ANY


def test_every_alert_says_what_to_do_and_is_tried() -> None:
    tried = ALERTS_TEST.read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert re.search(rf"\b{rule['alert']}\b", tried), rule["alert"]


@needs_promtool
def test_promtool_takes_the_alerts_and_they_fire_when_they_should() -> None:
    assert promtool("check", "rules", ALERTS.name) == ""
    assert promtool("test", "rules", ALERTS_TEST.name) == ""


@needs_promtool
def test_the_alerts_tests_can_fail(tmp_path: Path) -> None:
    shutil.copy(ALERTS_TEST, tmp_path)
    (tmp_path / ALERTS.name).write_text(re.sub(r"for: \w+", "for: 0s", ALERTS.read_text()))
    assert "FAILED" in promtool("test", "rules", str(tmp_path / ALERTS_TEST.name))


@needs_promtool
def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    asked = [query.replace("$__rate_interval", "5m") for query in queries()]
    recorded = [{"record": f"asked:{number}", "expr": query} for number, query in enumerate(asked)]
    file = tmp_path / "asked.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": recorded}]}))
    assert promtool("check", "rules", str(file)) == ""


def unknown(told: Any, known: Any, at: str = "") -> list[str]:
    """What is told and not known, by its keys."""
    if isinstance(told, dict) and isinstance(known, dict):
        return [each for key in told for each in unknown(told[key], known.get(key), f"{at}.{key}")]
    if isinstance(told, list) and isinstance(known, list) and len(told) == len(known):
        return [each for one, other in zip(told, known, strict=True) for each in unknown(one, other, f"{at}[]")]
    return [] if told == known else [f"{at}: {told!r} is {known!r} to Grafana"]


def by_grafana(told: dict[str, Any]) -> Any:
    """What is left of a dashboard when Grafana's own library has read it."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(told)))


def test_grafana_knows_all_that_the_dashboard_says() -> None:
    told = json.loads(DASHBOARD.read_text())
    for variable in told["templating"]["list"]:
        variable.pop("definition", None)  # Grafana writes it beside the query, and its library leaves it out
    assert unknown(told, by_grafana(told)) == []


@pytest.mark.parametrize("key", ["fieldConfig.defaults.unitt", "options.legend.kalcs", "targets.exprr", "grid"])
def test_what_grafana_does_not_know_is_found(key: str) -> None:
    *way, last = key.split(".")
    told = json.loads(DASHBOARD.read_text())
    place = next(panel for panel in told["panels"] if panel["type"] == "timeseries")
    for word in way:
        place = place[word][0] if isinstance(place[word], list) else place[word]
    place[last] = "x"
    assert [each for each in unknown(told, by_grafana(told)) if each.split(":")[0].endswith(last)]


def test_the_dashboards_panels_have_places_of_their_own() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    places = [panel["gridPos"] for panel in panels()]
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_the_dashboard_asks_the_prometheus_that_is_chosen() -> None:
    for panel in panels():
        for asker in (panel, *panel.get("targets", ())) if panel["type"] != "row" else ():
            assert asker["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
