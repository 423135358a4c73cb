"""/metrics does not grow with the number of clients, is strict OpenMetrics, and waits for a last scrape at the end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from run_folders import digits
from waiting import eventually

import fedscape as fs
from clients.core.errors import UserError
from clients.sources.custom import custom_population
from server.metrics.table import METRICS, series_names
from server.sinks import metrics_server
from server.sinks.prometheus import PrometheusExporter, resident_memory
from server.sinks.remote_write import RemoteWriter
from simulator.scenario.sections import load_scenario

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def exporter() -> Iterator[PrometheusExporter]:
    made = PrometheusExporter(0, linger=0.0)
    yield made
    made.close()


def scrape(exporter: PrometheusExporter) -> bytes:
    with urlopen(Request(exporter.url, headers={"Accept": OPENMETRICS}), timeout=60) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        body: bytes = response.read()
    return body


def samples(exporter: PrometheusExporter) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return a scrape, parsed strictly."""
    families = text_string_to_metric_families(scrape(exporter).decode())
    found = [sample for family in families for sample in family.samples]
    assert all("run_id" in sample.labels for sample in found)
    return {
        (s.name, tuple(sorted((k, v) for k, v in s.labels.items() if k != "run_id"))): float(s.value) for s in found
    }


def test_scrape_of_ten_thousand_clients_stays_under_20_kib(exporter: PrometheusExporter) -> None:
    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(k)
        return random.normal(size=(2, 4)), random.integers(0, 10, 2)

    data = custom_population(client, [2] * 10_000, outputs=10, validation=client(10_000), test=client(10_001))
    changes = ["data=", "partition=", "model.hidden=[8]", "model.kind=mlp", "algorithm.cohort=", "local.batch_size=2",
               "local.local_epochs=1", "run.rounds=1", "evaluation.federated_every=1",
               "evaluation.federated_clients=10000", "evaluation.baselines=false", "engine.kind=stacked"]  # fmt: skip
    scenario = load_scenario("digits-label-skew", sets=changes)
    run = fs.simulate(scenario, data=data, record=False, observers=[exporter])
    assert run.rounds["respondents"][1] == 10_000
    assert len(scrape(exporter)) < 20 * 1024
    assert len(samples(exporter)) > 100


def test_scrape_has_exactly_the_live_metrics_of_the_newest_round(exporter: PrometheusExporter) -> None:
    run = fs.simulate(digits(), record=False, observers=[exporter])
    found = samples(exporter)
    live = {name for metric in METRICS.values() if metric.live for name in series_names(metric)}
    assert {name for name, _ in found} <= live
    table = run.rounds
    assert found["fedscape_round", ()] == 8
    assert found["fedscape_loss", (("split", "validation"),)] == table["validation_loss"][8]
    assert found["fedscape_loss", (("split", "federated"),)] == table["federated_loss"][6], "as last measured"
    assert found["fedscape_client_responses_total", ()] == table["respondents"][1:].sum()
    assert found["fedscape_client_drift_distribution_count", ()] == table["respondents"][1:].sum()
    assert found["fedscape_top_client_drift", (("rank", "1"),)] == table["client_drift.max"][8]
    assert found["fedscape_run_state", (("state", "stopped"),)] == 1
    assert found["fedscape_run_state", (("state", "running"),)] == 0
    assert found["fedscape_test_accuracy_ratio", ()] == run.outcome["test_accuracy"]
    assert found["fedscape_exporter_resident_memory_bytes", ()] > 50e6


def test_state_is_running_until_the_outcome_and_a_new_run_starts_afresh(
    exporter: PrometheusExporter,
) -> None:
    exporter.run_started({"run_id": "one", "rounds": 5})
    exporter.round_finished({"round": 1, "train_loss": 0.5})
    running = ("fedscape_run_state", (("state", "running"),))
    assert samples(exporter)[running] == 1
    exporter.run_finished({"outcome": "diverged", "round": 1})
    found = samples(exporter)
    assert (found[running], found["fedscape_run_state", (("state", "diverged"),)]) == (0, 1)
    exporter.run_started({"run_id": "two", "rounds": 7})
    found = samples(exporter)
    assert found["fedscape_rounds_budget", ()] == 7
    assert ("fedscape_loss", (("split", "train"),)) not in found
    assert b'run_id="one"' not in scrape(exporter)


def test_resumed_run_continues_its_counters(exporter: PrometheusExporter) -> None:
    exporter.run_started({"run_id": "a"})
    exporter.recorded_before([{"round": 0}, {"round": 1, "respondents": 3}])
    exporter.round_finished({"round": 2, "respondents": 4})
    assert samples(exporter)["fedscape_client_responses_total", ()] == 7


def test_scrape_has_the_counts_of_other_sinks() -> None:
    writer = RemoteWriter("http://127.0.0.1:9/")
    writer.tally.sent, writer.tally.refused, writer.tally.dropped, writer.tally.failed = 5, 4, 3, 2
    exporter = PrometheusExporter(0, sinks=[writer], linger=0.0)
    exporter.run_started({"run_id": "a"})
    try:
        found = samples(exporter)
    finally:
        exporter.close()
    sink = (("sink", "remote_write"),)
    names = ("samples_sent_total", "samples_refused_total", "rounds_dropped_total", "failed_requests_total")
    assert [found[f"fedscape_exporter_{name}", sink] for name in names] == [5, 4, 3, 2]
    assert found["fedscape_exporter_queue_rounds", sink] == 0


def test_exporter_listens_on_the_loopback_and_refuses_what_it_cannot_listen_on() -> None:
    exporter = PrometheusExporter(0, linger=0.0)
    try:
        assert exporter.url.startswith("http://127.0.0.1:")
        port = int(exporter.url.split(":")[2].split("/")[0])
        with pytest.raises(UserError, match=f"metrics-port: cannot listen on 127.0.0.1:{port}"):
            PrometheusExporter(port)
    finally:
        exporter.close()
    exporter.close()
    with pytest.raises(UserError, match="metrics-port"):
        PrometheusExporter(70_000)


def test_close_waits_for_a_last_scrape_only_after_a_scrape() -> None:
    for scraped, waits in ((False, False), (True, True)):
        exporter = PrometheusExporter(0, linger=1.5)
        exporter.run_started({"run_id": "a"})
        exporter.round_finished({"round": 1})
        if scraped:
            scrape(exporter)
        exporter.run_finished({"outcome": "stopped", "round": 1})
        exporter._scraped_outcome = patience = Patience()
        exporter.close()
        assert patience.waits == ([1.5] if waits else [])


class Patience(threading.Event):
    """An event that records the requested time of each wait, and never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


def test_last_scrape_ends_the_wait_of_close() -> None:
    exporter = PrometheusExporter(0, linger=600.0)
    exporter.run_started({"run_id": "a"})
    scrape(exporter)
    exporter.run_finished({"outcome": "stopped", "round": 1})
    closing = threading.Thread(target=exporter.close)
    closing.start()
    assert b'state="stopped"' in scrape(exporter)
    closing.join(60)
    assert not closing.is_alive()


def test_samples_are_made_by_a_scrape_only(exporter: PrometheusExporter) -> None:
    run = fs.simulate(digits(), record=False)
    exporter.run_started({"run_id": "a"})
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.sinks.prometheus.round_samples", lambda observed: made.append(observed) or ())
        for line in [*run.rounds.lines] * 10:
            exporter.round_finished(line)
        assert made == [], "a scrape makes the samples, not the round"
        scrape(exporter)
        assert len(made) == 1


def test_memory_is_known_on_linux() -> None:
    memory = resident_memory()
    assert memory is None or memory > 10e6


def test_scrape_before_a_run_is_empty(exporter: PrometheusExporter) -> None:
    families: list[Any] = list(text_string_to_metric_families(scrape(exporter).decode()))
    assert {family.name for family in families} == {"fedscape_exporter_resident_memory_bytes"}


def answered(exporter: PrometheusExporter, head: str) -> bytes:
    """Return the answer to a request of one line and these headers."""
    port = int(exporter.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET /metrics HTTP/1.1\r\n{head}\r\n".encode())
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@pytest.mark.parametrize(
    ("host", "served"),
    [("127.0.0.1:9464", True), ("localhost", True), ("LocalHost.:1", True), ("[::1]:9464", True), ("192.168.1.7", True),
     ("box.example:9464", True), ("BOX.example", True), ("evil.example", False), ("evil.example:9464", False),
     ("box.example.evil.example", False), ("127.0.0.1.evil.example", False), ("localhost,evil.example", False),
     ("", False), ("1", False)],
)  # fmt: skip
def test_scrape_under_a_foreign_name_is_refused(host: str, served: bool) -> None:
    exporter = PrometheusExporter(0, names=["box.example"], linger=0.0)
    try:
        exporter.run_started({"run_id": "a"})
        found = answered(exporter, f"Host: {host}\r\n")
        assert found.startswith(b"HTTP/1.0 200" if served else b"HTTP/1.0 403")
        assert (b"run_id" in found) == served
        assert (b"--metrics-name" in found) != served
        assert answered(exporter, "").startswith(b"HTTP/1.0 403")
    finally:
        exporter.close()


def test_client_that_sends_or_reads_nothing_holds_neither_scrapes_nor_the_end(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.1)
    exporter = PrometheusExporter(0, linger=0.0)
    port = int(exporter.url.split(":")[2].split("/")[0])
    with ExitStack() as stack:
        for request in (b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            connection.sendall(request)
            eventually(lambda connection=connection: connection.recv(1) == b"", seconds=30)
        exporter.run_started({"run_id": "a"})
        assert samples(exporter)
        exporter.close()
    assert capfd.readouterr().err == ""
