"""The alert and recording rules are valid, tested by promtool, in the runbook, and use scraped metrics."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from needs import needs_prometheus

from server.metrics.table import METRICS, series_names

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "observability" / "rules" / "fedscape.yml"
TESTS = Path(__file__).with_name("prometheus_rules.yml")
ALERTS = re.findall(r"alert: (\w+)", RULES.read_text("utf-8"))


@needs_prometheus
def test_rules_are_valid_for_promtool() -> None:
    subprocess.run(["promtool", "check", "rules", "--lint-fatal", str(RULES)], check=True, capture_output=True)


@needs_prometheus
def test_every_alert_fires_and_clears(tmp_path: Path) -> None:
    tests = tmp_path / "tests.yml"
    tests.write_text(TESTS.read_text("utf-8").replace("RULES", str(RULES)), "utf-8")
    ran = subprocess.run(["promtool", "test", "rules", str(tests)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_firing_and_silent_and_is_in_the_runbook(alert: str) -> None:
    expectations = re.findall(rf"alertname: {alert}\n\s+eval_time: \w+\n\s+exp_alerts:(.*)", TESTS.read_text("utf-8"))
    assert "" in expectations, "it fires"
    assert expectations[0].strip() == "[]", "the first test is not of a silent alert"
    assert expectations[-1].strip() == "[]" or alert == "FedscapeRunDiverged", "it clears"
    assert f"## {alert}\n" in (ROOT / "docs" / "runbook.md").read_text("utf-8")
    assert f"runbook: docs/runbook.md#{alert.lower()}" in RULES.read_text("utf-8")


def test_rules_use_metrics_that_exist_and_are_scraped() -> None:
    used = set(re.findall(r"(?<![:\w])fedscape_[a-z0-9_]+", re.sub(r"run_id:[\w:]+", "", RULES.read_text("utf-8"))))
    live = {name for metric in METRICS.values() if metric.live for name in series_names(metric)}
    assert used
    assert used <= live
