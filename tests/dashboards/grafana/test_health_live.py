"""The live dashboard's queries, on a real Prometheus that scrapes a real exporter, return the newest values.

Skipped where Prometheus is not installed (Debian, Ubuntu: apt install prometheus).
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from needs import needs_prometheus
from prometheus_servers import free_port
from promql_truth import Answers
from record_truth import Truth, Values

from dashboards.grafana.build import FOLDER
from dashboards.prometheus import Role, live, running
from server.sinks.export import read_recorded
from server.sinks.prometheus import PrometheusExporter
from server.sinks.sender import Sent
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario

pytestmark = needs_prometheus

MODEL = json.loads((FOLDER / "federation_health.json").read_text("utf-8"))
TARGETS = [(panel["title"], target["expr"]) for panel in MODEL["panels"] for target in panel.get("targets", ())]
RULES = {"groups": [{"name": "test", "rules": [
    {"alert": "Moves", "expr": "fedscape_round > 1", "labels": {"severity": "none"}},
]}]}  # fmt: skip
SETS = ("run.rounds=8", "partition.clients=10", "algorithm.cohort=5", "local.local_epochs=1", "engine.kind=stacked",
        "evaluation.federated_every=3", "evaluation.baselines=false", "engine.workers=2")  # fmt: skip


@dataclass
class FakeSink:
    """A sink with counters."""

    name: str = "remote_write"
    waiting: int = 3
    tally: Sent = field(default_factory=Sent)


@dataclass(frozen=True)
class Scraped:
    """A Prometheus that has scraped a run up to its last round, and the time."""

    role: Role
    truth: Truth
    at: float

    def ask(self, query: str) -> list[Any]:
        parameters = urlencode({"query": query.replace("$__rate_interval", "30s"), "time": self.at})
        with urlopen(f"{self.role.url}/api/v1/query?{parameters}", timeout=60) as response:
            found: list[Any] = json.load(response)["data"]["result"]
            return found

    def values(self, query: str) -> Values:
        aside = ("__name__", "job", "instance", "alertstate")
        return {
            frozenset((k, v) for k, v in one["metric"].items() if k not in aside): float(one["value"][1])
            for one in self.ask(query)
        }


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Scraped]:
    """Replay a recorded run's rounds to an exporter while it is scraped."""
    simulate(load_scenario("digits-label-skew", sets=SETS), out=tmp_path / "run")
    truth, sink, port = Truth(tmp_path / "run"), FakeSink(), free_port()
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    role = live(free_port(), scrape=port, rules=[str(tmp_path / "rules.json")])
    exporter = PrometheusExporter(port, sinks=[sink], linger=0)
    try:
        with running([role], tmp_path):
            first, *others = read_recorded(tmp_path / "run").lines
            exporter.run_started(truth.facts)
            exporter.round_finished(first)
            wait_for(role, "fedscape_round")
            for line in others:
                sink.tally.sent += 10
                exporter.round_finished(line)
                time.sleep(0.3)
            wait_for(role, f"fedscape_round == {len(others)} and on () ALERTS")
            yield Scraped(role, truth, time.time())
    finally:
        exporter.close()


def wait_for(role: Role, query: str) -> None:
    """Wait until a query returns something; the first scrape comes about five seconds after Prometheus' start."""
    until = time.monotonic() + 60
    while not Scraped(role, None, time.time()).ask(query):  # type: ignore[arg-type]
        assert time.monotonic() < until, f"Prometheus returned nothing for {query}"
        time.sleep(0.1)


def held(truth: Truth, metric: str, r: int) -> Values:
    """Return the last measured value of a metric."""
    return next((found for q in range(r, -1, -1) if (found := truth.at(metric, q))), {})


def test_every_live_query_returns_the_values_of_the_record(scraped, subtests):
    assert len(TARGETS) > 25
    for title, expr in TARGETS:
        with subtests.test(msg=f"{title}: {expr}"):
            check(scraped, expr.replace("$run", scraped.truth.run_id))


def check(scraped: Scraped, expr: str) -> None:
    """Compare the result of a query with the record."""
    found, last = scraped.values(expr), scraped.truth.over - 1
    if "[$__rate_interval]" in expr:
        moved = not any(word in expr for word in ("failures", "failed", "refused", "dropped"))
        assert [value > 0 for value in found.values()] == [moved]
    elif expr.startswith("time() - "):
        waited = scraped.at - scraped.truth.lines[last]["finished_at"]
        assert found == pytest.approx({frozenset({("run_id", scraped.truth.run_id)}): waited}, abs=0.002)
    elif "ALERTS" in expr:
        words = {"alertname": "Moves", "severity": "none", "run_id": scraped.truth.run_id}
        assert found == {frozenset(words.items()): 1.0}
    elif "exporter" in expr or expr.startswith("up{"):
        assert len(found) == 1
        (value,) = found.values()
        assert value == 1 if "up{" in expr else value == 3 if "queue" in expr else 1e7 < value < 1e11
    else:
        wanted = Answers([scraped.truth], held).of(expr, last)
        of_nodes = any(name in expr for name in ("rejected", "late_replies", "repeats"))
        assert wanted or of_nodes, "the run has all others"
        assert found.keys() == wanted.keys()
        assert all(math.isclose(found[key], wanted[key], rel_tol=1e-12) for key in wanted)


def test_dashboard_starts_with_the_live_data_source():
    chosen = next(v for v in MODEL["templating"]["list"] if v["name"] == "datasource")
    assert chosen["current"]["value"] == "fedscape-live"
