"""Weights & Biases and MLflow, offline: what they hold is what the record has, and they never hold or fail a run."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from needs import MLFLOW_PACKAGE, WANDB_PACKAGE
from run_folders import digits

import fedscape as fs
from clients.core.errors import UserError
from server.sinks import background
from server.sinks.trackers import tracking
from server.sinks.trackers.tracking import MLFLOW, WANDB, Tracker, TrackerSink, send_recorded
from simulator.cli.main import main


class _Seen:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.run_id = ""

    def run_started(self, facts: dict[str, Any]) -> None:
        self.run_id = facts["run_id"]

    def event(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def failure(self, kind: str) -> str:
        """Return the message of the one event of this kind."""
        (event,) = [event for event in self.events if event["kind"] == kind]
        message: str = event["message"]
        return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    fs.simulate(digits(), out=path)
    return path


def run_id_of(folder: Path) -> str:
    found: str = json.loads((folder / "environment.json").read_text("utf-8"))["run"]["run_id"]
    return found


READ_MLFLOW = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
experiment = client.get_experiment_by_name("fedscape")
(run,) = client.search_runs([experiment.experiment_id], f"tags.`fedscape.run_id` = '{sys.argv[2]}'")
def steps(name):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
metrics = {name: steps(name) for name in run.data.metrics}
print(json.dumps({"metrics": metrics, "params": run.data.params, "tags": run.data.tags, "status": run.info.status}))
"""
"""In a process of its own: MLflow's use of SQLAlchemy warns, and warnings are errors here."""


def mlflow_run(uri: str, run_id: str) -> dict[str, Any]:
    """Return metrics (steps and values), params, tags and status of the one run with this id."""
    command = [sys.executable, "-c", READ_MLFLOW, uri, run_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **tracking.QUIET})
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def history(run: Mapping[str, Any], name: str) -> dict[int, float]:
    """Return step -> value of one metric; a step has one value."""
    found = run["metrics"][name]
    assert len(dict(found)) == len(found)
    return {int(step): value for step, value in found}


@MLFLOW_PACKAGE.mark
def test_mlflow_holds_every_round_of_a_live_run(tmp_path: Path) -> None:
    uri, seen = f"sqlite:///{tmp_path / 'mlflow.db'}", _Seen()
    run = fs.simulate(digits(), record=False, observers=[seen, TrackerSink(MLFLOW, uri, patience=300)])
    assert [event for event in seen.events if event["kind"] == "mlflow_failed"] == []
    found = mlflow_run(uri, seen.run_id)
    assert history(found, "loss/validation") == dict(enumerate(run.rounds["validation_loss"].tolist()))
    assert history(found, "client_drift/0.95")[5] == run.rounds["client_drift.p95"][5]
    assert list(history(found, "loss/federated")) == [3, 6]
    assert history(found, "test_accuracy_ratio") == {8: run.outcome["test_accuracy"]}
    assert found["params"]["seed"] == str(run.session.scenario.run.seed)
    assert found["params"]["scenario"] == "digits-label-skew"
    assert found["tags"]["fedscape.verdict"] == str(run.verdict)
    assert found["status"] == "FINISHED"


@MLFLOW_PACKAGE.mark
def test_mlflow_gets_the_same_from_a_record_and_a_second_time_nothing(folder: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for _ in range(2):
        assert main(["export", str(folder), "--to", "mlflow", "--url", uri]) == 0
    found = mlflow_run(uri, run_id_of(folder))
    losses = fs.open_run(folder).rounds["validation_loss"]
    assert history(found, "loss/validation") == dict(enumerate(losses.tolist()))


def blocks(file: Path) -> Iterator[bytes]:
    """Yield the records of a .wandb file: LevelDB's log format after a header of seven bytes."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # full, or the last part
            yield whole
            whole = b""


def wandb_records(folder: Path) -> Iterator[Any]:
    """Yield the records of the offline runs in a folder."""
    from wandb.proto import wandb_internal_pb2 as protocol

    for file in sorted(folder.rglob("*.wandb")):
        for data in blocks(file):
            record = protocol.Record()
            record.ParseFromString(data)
            yield record


def wandb_history(folder: Path) -> dict[int, Mapping[str, Any]]:
    """Return round -> values of an offline run."""
    rows = [
        {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
        for record in wandb_records(folder)
        if record.WhichOneof("record_type") == "history"
    ]
    return {int(row["round"]): row for row in rows}


@pytest.fixture
def wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path


@WANDB_PACKAGE.mark
def test_wandb_holds_every_round_of_a_live_run(wandb_offline: Path) -> None:
    seen = _Seen()
    run = fs.simulate(digits(), record=False, observers=[seen, TrackerSink(WANDB, "team/cities", patience=300)])
    assert [event for event in seen.events if event["kind"] == "wandb_failed"] == []
    found = wandb_history(wandb_offline)
    assert {r: row["loss/validation"] for r, row in found.items()} == dict(enumerate(run.rounds["validation_loss"]))
    assert found[5]["client_drift/0.95"] == run.rounds["client_drift.p95"][5]
    assert [r for r, row in found.items() if "loss/federated" in row] == [3, 6]
    started = next(r.run for r in wandb_records(wandb_offline) if r.WhichOneof("record_type") == "run")
    assert (started.entity, started.project, started.run_id) == ("team", "cities", seen.run_id)
    config = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert config["scenario"] == "digits-label-skew"
    assert config["seed"] == run.session.scenario.run.seed
    summary: dict[str, Any] = {}
    for record in wandb_records(wandb_offline):
        if record.WhichOneof("record_type") == "summary":
            summary |= {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.summary.update}
    assert summary["test_accuracy_ratio"] == run.outcome["test_accuracy"]
    assert summary["verdict"] == str(run.verdict)


@WANDB_PACKAGE.mark
def test_wandb_gets_the_same_from_a_record(folder: Path, wandb_offline: Path) -> None:
    assert main(["export", str(folder), "--to", "wandb", "--project", "cities"]) == 0
    losses = fs.open_run(folder).rounds["validation_loss"]
    found = wandb_history(wandb_offline)
    assert {r: row["loss/validation"] for r, row in found.items()} == dict(enumerate(losses))


@WANDB_PACKAGE.mark
def test_wandb_file_has_nothing_of_the_machine(folder: Path, wandb_offline: Path) -> None:
    assert main(["export", str(folder), "--to", "wandb", "--project", "cities"]) == 0
    (started,) = [r.run for r in wandb_records(wandb_offline) if r.WhichOneof("record_type") == "run"]
    assert (started.host, started.git.remote_url) == ("", "")
    content = b"".join(file.read_bytes() for file in wandb_offline.rglob("*.wandb"))
    assert str(folder.parent).encode() not in content


@WANDB_PACKAGE.mark
def test_wandb_without_a_key_costs_one_event(wandb_offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(wandb_offline / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    seen = _Seen()
    run = fs.simulate(digits(), record=False, observers=[seen, TrackerSink(WANDB, "cities", patience=120)])
    assert run.verdict.outcome == "stopped"
    assert "the record has all of it" in seen.failure("wandb_failed")
    assert "fedscape export RUN --to wandb" in seen.failure("wandb_failed")


@MLFLOW_PACKAGE.mark
def test_server_that_never_answers_costs_the_patience_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://me:s3cretword@127.0.0.1:{silent.getsockname()[1]}"
        seen, sink = _Seen(), TrackerSink(MLFLOW, uri, patience=0.5)
        run = fs.simulate(digits(), record=False, observers=[seen, sink])
        assert run.verdict.outcome == "stopped"
        assert "it did not take the run within 0.5 seconds" in seen.failure("mlflow_failed")
        process = sink._process
        assert process is None or process._process.poll() is not None


@MLFLOW_PACKAGE.mark
def test_refusing_server_is_an_error_of_export_without_its_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["export", str(folder), "--to", "mlflow", "--url", "http://me:s3cretword@127.0.0.1:9"]) == 2
    words = capsys.readouterr().err
    assert "fedscape: mlflow: did not take the run" in words
    assert "s3cretword" not in words


FAKES = {
    "fails": 'raise RuntimeError("no such tracker, s3cretword")',
    "dies": "import os\n    os._exit(3)",
    "prints": 'print("a banner")\n    return Run()',
}
FAKE = """
from server.sinks.trackers.child import serve
class Run:
    def round(self, number, at, values): pass
    def end(self, outcome, values): return str(outcome and outcome["outcome"])
def opening(target, facts, before):
    BODY
serve(opening)
"""


@pytest.mark.parametrize(
    ("kind", "words"),
    [("fails", "RuntimeError: no such tracker, \\(hidden\\)"), ("dies", "its process ended with code 3")],
)
def test_library_that_fails_or_dies_is_named(
    kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", "s3cretword")
    monkeypatch.setattr(tracking, "PROGRAM", ["-c", FAKE.replace("BODY", FAKES[kind])])
    fake = Tracker("Fake", "fake", "json", ("FAKE_KEY",), ("FAKE_",))
    with pytest.raises(UserError, match=f"fake: did not take the run: .*{words}"):
        send_recorded(fake, "here", {"run_id": "a"}, [{"round": r} for r in range(20_000)], None)


def test_process_gets_its_own_secrets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TOKEN", "of the tracker")
    monkeypatch.setenv("FEDSCAPE_GRAFANA_TOKEN", "of another")
    body = 'import os\n    raise RuntimeError([name for name in os.environ if name.endswith("_TOKEN")])'
    monkeypatch.setattr(tracking, "PROGRAM", ["-c", FAKE.replace("BODY", body)])
    with pytest.raises(UserError, match=r"RuntimeError: \['FAKE_TOKEN'\]"):
        send_recorded(Tracker("Fake", "fake", "json", (), ("FAKE_",)), "here", {}, [], None)


def test_what_a_library_prints_reaches_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PROGRAM", ["-c", FAKE.replace("BODY", FAKES["prints"])])
    fake = Tracker("Fake", "fake", "json", ())
    assert send_recorded(fake, "here", {"run_id": "a"}, [{"round": 0}], {"outcome": "stopped"}) == "stopped"


def test_rounds_that_do_not_fit_into_the_queue_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = FAKE.replace("BODY", "return Run()").replace(
        "values): pass", "values):\n        import time; time.sleep(0.01)"
    )
    monkeypatch.setattr(tracking, "PROGRAM", ["-c", slow])
    monkeypatch.setattr(background, "MOST_WAITING", 5)
    told: list[dict[str, Any]] = []
    sink = TrackerSink(Tracker("Fake", "fake", "json", ()), "here", patience=60)
    sink.attached(told.append)
    sink.run_started({"run_id": "a"})
    for r in range(8):
        sink.round_finished({"round": r, "padding": "x" * 1_000_000})
    sink.run_finished({"outcome": "converged", "round": 7})
    assert "it was too slow" in told[0]["message"]
    assert "rounds were left out" in told[0]["message"]


def test_package_that_is_not_installed_is_refused_before_the_run() -> None:
    with pytest.raises(UserError, match=r"fake: needs the package no_such_package.*pip install 'fedscape\[fake\]'"):
        TrackerSink(Tracker("Fake", "fake", "no_such_package", ()), "here")


@pytest.mark.parametrize("option", [["--wandb", " "], ["--mlflow", ""]])
def test_empty_target_is_refused_before_the_run(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "quadratic-two-clients", "--out", str(tmp_path / "run"), *option]) == 2
    assert f"{option[0][2:]}: must be" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("to", "missing"), [("wandb", "project"), ("mlflow", "url")])
def test_export_names_the_missing_target(
    to: str, missing: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(folder), "--to", to]) == 2
    assert f"{missing}: is missing" in capsys.readouterr().err
