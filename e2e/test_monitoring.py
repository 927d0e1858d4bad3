"""What monitoring/ has, in a real Prometheus that scrapes real load balancers and nodes: every metric is in form, every
query of the dashboard finds something, and the alert rules see what happens.

Takes half a minute, and prometheus and promtool (Debian: prometheus), which `scripts/install` leaves out: with
`--monitoring` only, as `make e2e-monitoring` runs it, which installs them.
"""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from e2e.test_operating import gale
from e2e.waiting import until
from gale.lab.cluster import Lab
from gale.lab.options import LabOptions

MONITORING = Path(__file__).parents[1] / "monitoring"
ASKED_AT = "127.0.0.1:9095"
HOLDS_ONLY_WHEN_AMISS = re.compile(r" (?:==|>) [01]\b")
OPTIONS = LabOptions(load_balancers=3, nodes=2, tls=True)

Ask = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def _wanted(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--monitoring"):
        pytest.skip("a real Prometheus: --monitoring")
    assert shutil.which("prometheus"), "prometheus is not installed (Debian: prometheus)"


def configuration(lab: Lab) -> str:
    """Every load balancer and every node, each second."""
    topology = lab.topology
    tls = {"ca_file": str(lab.store.tls / "ca.crt")}
    lbs, nodes = ([each.private for each in instances] for instances in (topology.lbs, topology.node_instances))
    jobs = [
        {"job_name": "gale", "scheme": "https", "tls_config": tls, "static_configs": [{"targets": at(lbs, 5556)}]},
        {"job_name": "gale-node", "static_configs": [{"targets": at(nodes, 5557)}]},
    ]
    often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    rules = [str(MONITORING / "gale-alerts.yml")]
    return str(yaml.safe_dump({"global": often, "rule_files": rules, "scrape_configs": jobs}))


def at(addresses: list[str | None], port: int) -> list[str]:
    return [f"{address}:{port}" for address in addresses]


@pytest.fixture
def ask(lab: Lab, tmp_path: Path) -> Iterator[Ask]:
    """Asks the Prometheus that runs on lb-0's machine."""
    (tmp_path / "prometheus.yml").write_text(configuration(lab))
    command = lab.command(
        "lb-0",
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={ASKED_AT}",
            "--log.level=warn",
        ],
    )

    def ask(what: str, **arguments: str) -> Any:
        address = f"http://{ASKED_AT}/api/v1/{what}?{urlencode(arguments)}"
        told = lab.run("lb-0", ["curl", "--silent", "--globoff", address])
        with suppress(json.JSONDecodeError):
            answer = json.loads(told.stdout)
            return answer.get("data", answer)
        return None

    with (tmp_path / "log").open("w") as log:
        prometheus = subprocess.Popen(command, stderr=log)
    try:
        until(lambda: not_up(ask), within_s=20)
        yield ask
    finally:
        prometheus.send_signal(signal.SIGTERM)
        prometheus.wait(20)
        print((tmp_path / "log").read_text())  # noqa: T201  pytest shows it when a test fails


def not_up(ask: Ask) -> str | None:
    targets = (ask("targets") or {"activeTargets": []})["activeTargets"]
    down = [f"{target['scrapeUrl']}: {target['lastError']}" for target in targets if target["health"] != "up"]
    return "; ".join(down) or (None if len(targets) == 5 else "five targets")


def found(ask: Ask, query: str) -> list[Any]:
    result = ask("query", query=query)
    assert "error" not in result, (query, result)
    return list(result["result"])


def alerts(ask: Ask) -> set[str]:
    return {alert["labels"]["alertname"] for alert in ask("alerts")["alerts"]}


def test_every_metric_is_in_form(lab: Lab, ask: Ask) -> None:
    for name, url in (("lb-0", "http://127.0.0.1:5556/metrics"), ("node-0", "http://127.0.0.1:5557/metrics")):
        told = lab.run(name, ["curl", "--silent", url]).stdout
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=told, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, ""), name


def dashboard() -> dict[str, Any]:
    return dict(json.loads((MONITORING / "gale-dashboard.json").read_text()))


def test_every_variable_and_every_panel_of_the_dashboard_finds_something(lab: Lab, ask: Ask) -> None:
    """What is shown only while something is amiss is asked for without that condition; and one node is drained."""
    chosen = {"__rate_interval": "10s"}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", said(variable["definition"], chosen))
            assert asked, variable["definition"]
            label = asked[2]
            until(lambda: None if found(ask, asked[1]) else asked[1], within_s=10)  # noqa: B023  done before the next
            values = {each["metric"][label] for each in found(ask, asked[1])}
            chosen[variable["name"]] = "|".join(sorted(values))
    assert (chosen["job"], chosen["nodes"], chosen["instance"].count("|")) == ("gale", "gale-node", 2)
    queries = [
        HOLDS_ONLY_WHEN_AMISS.sub("", said(target["expr"], chosen))
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]
    order(lab, "drain")
    try:
        with lab.traffic(rate=50):
            until(lambda: "; ".join(query for query in queries if not found(ask, query)) or None, within_s=20)
    finally:
        order(lab, "undrain")


def order(lab: Lab, what: str) -> None:
    done = gale(lab, "client", "ctl", "node", what, "node-1", "--server", f"unix:{lab.store.state('lb-0')}.sock")
    assert done.returncode == 0, done.stderr


def said(expression: str, chosen: dict[str, str]) -> str:
    """As Grafana asks, once the variables are chosen."""
    return re.sub(r"\$(\w+)", lambda name: chosen[name[1]], expression)


def test_the_rules_see_a_load_balancer_die_and_nothing_before(lab: Lab, ask: Ask) -> None:
    def unfit() -> str | None:
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        unfit = [rule["name"] for rule in rules if rule["health"] != "ok"]
        return ", ".join(unfit) or (None if rules else "rules")

    until(unfit, within_s=10)
    until(lambda: ", ".join(alerts(ask)) or None, within_s=15)
    lab.kill("lb-2")
    expected = {"GaleLoadBalancerDown", "GalePeerLost", "GaleChecksUnanswered"}
    until(lambda: ", ".join(expected - alerts(ask)) or None, within_s=15)
    assert alerts(ask) == expected
