"""Alert rules and dashboard: accepted by promtool, of metrics that exist, and explained in OPERATIONS.md."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from host_controller.api.metric_families import FAMILIES
from host_controller.doctor import cluster, host, vm
from host_controller.fleet.metrics import FAMILIES as FLEET_FAMILIES
from tests.support.promtool import promtool
from tests.support.surveys import HOST, survey

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "monitoring"
OPERATIONS = (ROOT / "OPERATIONS.md").read_text()
RULES = ("alerts.yml", "fleet_rules.yml")
DASHBOARDS = ("grafana-dashboard.json", "grafana-fleet.json")
ALERTS = re.findall(r"- alert: (\S+)", "".join((MONITORING / one).read_text() for one in RULES))
RECORDED = set(re.findall(r'record: "?(dynmem:[a-z_:]+)', (MONITORING / "fleet_rules.yml").read_text()))


def dashboard(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / name).read_text())
    return found


def expressions() -> list[str]:
    panels = [panel for name in DASHBOARDS for panel in dashboard(name)["panels"]]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_promtool_accepts_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    tool = promtool(tmp_path)
    tests = ["alerts_test.yml", "fleet_rules_test.yml"]
    for arguments in (["check", "rules", *RULES], ["test", "rules", *tests]):
        done = subprocess.run([tool, *arguments], cwd=MONITORING, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    # Grafana's variables are not PromQL: what it would put in their place is.
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(expressions())
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [promtool(tmp_path), "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_what_we_serve(tmp_path: Path) -> None:
    from host_controller.api.metrics import Metrics
    from tests.support.virtual import Host, run

    async def story() -> bytes:
        import asyncio

        host = Host()
        host.vm("web")
        async with host.controller() as controller:
            metrics = Metrics(controller)
            controller.journal.add_sink(metrics.tally)
            controller.journal.count_error("api")
            await asyncio.sleep(30)
            return b"".join(metrics.render())

    done = subprocess.run([promtool(tmp_path), "check", "metrics"], input=run(story()), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_rules_and_dashboard_ask_only_for_metrics_that_exist() -> None:
    known = {one.name for one in (*FAMILIES, *FLEET_FAMILIES)}
    variables = [json.dumps(dashboard(name)["templating"]) for name in DASHBOARDS]
    text = "\n".join([*expressions(), *variables, *((MONITORING / one).read_text() for one in RULES)])
    for name in re.findall(r"\bdynmem_[a-z_]+", text):
        assert name.removesuffix("_bucket") in known
    assert set(re.findall(r"\bdynmem:[a-z_:]+", text)) == RECORDED


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_panels_of_a_dashboard_lie_side_by_side(name: str) -> None:
    cells = []
    for panel in dashboard(name)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells += [
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
    assert len(cells) == len(set(cells))
    numbers = [panel["id"] for panel in dashboard(name)["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_explained(alert: str) -> None:
    assert f"### {alert}\n" in OPERATIONS


@pytest.mark.parametrize(
    "check",
    [
        *(one(HOST).check for one in host.CHECKS),
        *(one(survey()).check for one in vm.CHECKS),
        *cluster.CHECKS,
        "libvirt",
    ],
)
def test_every_finding_of_the_doctor_is_explained(check: str) -> None:
    assert f"### {check}\n" in OPERATIONS
