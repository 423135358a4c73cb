"""A real Prometheus scrapes a running simulation: newest round, alerts, end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from needs import needs_prometheus
from prometheus_servers import PrometheusServer, free_port
from run_folders import digits
from waiting import eventually

import fedscape as fs
from dashboards.prometheus import live
from server.sinks.prometheus import PrometheusExporter

pytestmark = needs_prometheus
RULES = Path(__file__).parents[2] / "deploy" / "observability" / "rules" / "fedscape.yml"
PORT = free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    server = PrometheusServer(live(free_port(), scrape=PORT, rules=[str(RULES)]), tmp_path_factory.mktemp("live"))
    server.start()
    yield server
    server.kill()


class Seen:
    """Blocks a run at a round until Prometheus has scraped that round."""

    def __init__(self, server: PrometheusServer, at: int) -> None:
        self._server, self._at = server, at

    def run_started(self, facts: dict[str, Any]) -> None:
        self.run_id = facts["run_id"]

    def round_finished(self, line: dict[str, Any]) -> None:
        if line["round"] == self._at:
            eventually(lambda: self._server.query(f'fedscape_round{{run_id="{self.run_id}"}} == {self._at}'))
            self.seen = {
                name: self._server.query(f'{name}{{run_id="{self.run_id}"}}')
                for name in ("fedscape_loss", "fedscape_client_drift", "fedscape_client_responses_total", "up")
            }
            self.line = line


def test_prometheus_scrapes_a_running_simulation_and_its_end(server: PrometheusServer) -> None:
    exporter = PrometheusExporter(PORT)
    seen = Seen(server, at=5)
    run = fs.simulate(digits(), record=False, observers=[exporter, seen])
    loss = {labels["split"]: value for labels, value in seen.seen["fedscape_loss"]}
    assert loss["validation"] == seen.line["validation_loss"]
    assert loss["federated"] == run.rounds["federated_loss"][3], "the last measured value"
    drift = {labels["quantile"]: value for labels, value in seen.seen["fedscape_client_drift"]}
    assert drift["0.95"] == seen.line["client_drift"]["p95"]
    (responses,) = seen.seen["fedscape_client_responses_total"]
    assert responses[1] == 5 * 4
    exporter.close()  # waits for a last scrape
    assert server.one(f'last_over_time(fedscape_run_state{{run_id="{seen.run_id}",state="stopped"}}[5m])') == 1
    score = server.one(f'last_over_time(fedscape_test_accuracy_ratio{{run_id="{seen.run_id}"}}[5m])')
    assert score == run.outcome["test_accuracy"]


def alerts(server: PrometheusServer, *states: str) -> set[tuple[str, str]]:
    found = server.get("alerts")["alerts"]
    return {(a["labels"]["alertname"], a["labels"]["run_id"]) for a in found if a["state"] in states}


def test_alerts_fire_on_a_run_and_clear(server: PrometheusServer) -> None:
    exporter = PrometheusExporter(PORT, linger=0.0)
    try:
        exporter.run_started({"run_id": "goes wrong"})
        exporter.round_finished({"round": 1, "train_loss": float("nan")})
        eventually(lambda: ("FedscapeRunDiverged", "goes wrong") in alerts(server, "firing"))
        exporter.round_finished({"round": 2, "train_loss": 1.0})
        eventually(lambda: not alerts(server, "firing"))
    finally:
        exporter.close()
    gone = ("FedscapeExporterDown", "goes wrong")
    eventually(lambda: gone in alerts(server, "pending", "firing"))
    again = PrometheusExporter(PORT, linger=0.0)
    try:
        eventually(lambda: gone not in alerts(server, "pending", "firing"))
    finally:
        again.close()
