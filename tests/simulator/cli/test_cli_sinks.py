"""The sinks of a run, and `export`: a mistake is reported before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from receivers import receiving

import fedscape as fs
from clients.core.errors import UserError
from server.metrics.timeline import EPOCH_MS
from simulator.cli.main import main
from simulator.cli.sinks import SinkOptions, options_of


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metrics-port", "70000"], "metrics-port: cannot listen on 127.0.0.1:70000"),
        (["--metrics-port", "0", "--metrics-host", "no.such.host.invalid"], "metrics-port: cannot listen on"),
        (["--remote-write", "localhost:9090"], "remote-write: must be an http or https URL"),
    ],
)
def test_sink_that_cannot_start_is_reported_before_the_run(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "quadratic-two-clients", "--out", str(tmp_path / "run"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_environment_names_the_sinks_of_a_server_app() -> None:
    found = options_of(
        {
            "FEDSCAPE_METRICS_PORT": "9464",
            "FEDSCAPE_METRICS_HOST": "0.0.0.0",
            "FEDSCAPE_METRICS_NAME": "superlink, fl.example.org",
            "FEDSCAPE_REMOTE_WRITE": "http://runs:9099/api/v1/write",
        }
    )
    wanted = SinkOptions(9464, "0.0.0.0", ["superlink", "fl.example.org"], remote_write="http://runs:9099/api/v1/write")
    assert found == wanted
    assert options_of({}) == options_of({"FEDSCAPE_METRICS_PORT": "", "FEDSCAPE_REMOTE_WRITE": ""}) == SinkOptions()


@pytest.mark.parametrize("port", ["x", "-1", "65536", "94.64"])
def test_wrong_port_in_the_environment_is_refused(port: str) -> None:
    with pytest.raises(UserError, match=r"FEDSCAPE_METRICS_PORT: must be a whole number from 0 to 65535"):
        options_of({"FEDSCAPE_METRICS_PORT": port})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "quadratic"
    fs.simulate("quadratic-two-clients", out=path)
    return path


def test_export_writes_openmetrics_to_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(folder), "--to", "openmetrics"]) == 0
    text = capsys.readouterr().out
    loss = float(fs.open_run(folder).rounds["validation_loss"][3])
    run_id = json.loads((folder / "environment.json").read_text("utf-8"))["run"]["run_id"]
    assert run_id.startswith("quadratic-")
    line = f'fedscape_loss{{clock="round",run_id="{run_id}",split="validation"}} {loss!r} {EPOCH_MS // 1000 + 3}.000\n'
    assert line in text
    assert text.endswith("# EOF\n")


def test_runs_in_folders_with_the_same_name_have_different_ids(tmp_path: Path) -> None:
    facts: list[str] = []

    class Observer:
        def run_started(self, started: dict[str, Any]) -> None:
            facts.append(started["run_id"])

    for parent in ("a", "b"):
        fs.simulate("quadratic-two-clients", out=tmp_path / parent / "run", observers=[Observer()])
    assert facts[0] != facts[1]
    assert all(name.startswith("run-") for name in facts)


def test_export_prints_how_many_samples_it_sent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with receiving() as receiver:
        assert main(["export", str(folder), "--to", "remote-write", "--url", receiver.url]) == 0
        kept = sum(len(points) for points in receiver.stored.values())
    assert f"sent {kept:,} samples of 17 rounds" in capsys.readouterr().out


def test_export_reports_refused_samples_as_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with receiving(lambda series, before: (400, "out of bounds")) as receiver:
        assert main(["export", str(folder), "--to", "remote-write", "--url", receiver.url]) == 2
    assert "samples were refused (HTTP 400: out of bounds)" in capsys.readouterr().err


def test_export_to_remote_write_requires_a_url(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(folder), "--to", "remote-write"]) == 2
    assert "url: is missing" in capsys.readouterr().err


def test_export_refuses_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--to", "openmetrics"]) == 2
    assert "lacks scenario.toml" in capsys.readouterr().err


def test_export_takes_the_token_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDSCAPE_REMOTE_WRITE_TOKEN", "s3cret")
    with receiving(lambda series, before: (401, "")) as receiver:
        assert main(["export", str(folder), "--to", "remote-write", "--url", receiver.url]) == 2
        assert receiver.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in capsys.readouterr().err
